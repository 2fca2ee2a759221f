"""Whoever holds a node must say so again in time."""

from __future__ import annotations

import pytest

from vppd.agent.lease import Lease
from vppd.errors import Refused


def test_a_lease_ends_unless_renewed() -> None:
    """Held from the first command, it ends at its time; a renewal moves the end."""
    lease = Lease(600.0)
    assert not lease.ended(1e9)
    lease.renew("vppd", 1, 30.0, 100.0)
    assert not lease.ended(129.9)
    lease.renew("vppd", 2, 30.0, 120.0)
    assert lease.left_s(140.0) == 10.0
    assert not lease.ended(149.9)
    assert lease.ended(150.0)
    lease.let_go()
    assert not lease.ended(151.0)
    assert lease.left_s(151.0) == 0.0


def test_old_numbers_are_stale() -> None:
    """An older or equal number of the same sender renews nothing, also after the lease has ended; another sender counts anew."""
    lease = Lease(600.0)
    lease.renew("vppd", 5, 30.0, 0.0)
    for seq in (5, 4):
        with pytest.raises(Refused, match="stale"):
            lease.renew("vppd", seq, 600.0, 1.0)
    assert lease.until_s == 30.0
    lease.let_go()
    with pytest.raises(Refused, match="stale"):
        lease.renew("vppd", 5, 30.0, 2.0)
    lease.renew("other", 1, 30.0, 3.0)
    assert lease.holder == "other"


@pytest.mark.parametrize("lease_s", [0.0, -1.0, 600.1])
def test_a_lease_has_bounds(lease_s: float) -> None:
    """A lease without end, or without time, is refused and changes nothing."""
    lease = Lease(600.0)
    with pytest.raises(Refused, match="600"):
        lease.renew("vppd", 1, lease_s, 0.0)
    assert not lease.held
    lease.renew("vppd", 1, 30.0, 0.0)


def test_letting_go_may_come_later_by_its_place() -> None:
    """With a spread the lease is over at its time, but the node lets go in its own turn."""
    lease = Lease(600.0, late_s=4.0)
    lease.renew("vppd", 1, 10.0, 0.0)
    assert lease.left_s(11.0) == 0.0
    assert not lease.ended(13.9)
    assert lease.ended(14.0)


def test_only_so_many_senders_are_remembered() -> None:
    """A thousand senders do not fill the memory; the latest is still known."""
    lease = Lease(600.0)
    for number in range(1000):
        lease.renew(f"s{number}", 1, 30.0, 0.0)
    with pytest.raises(Refused, match="stale"):
        lease.renew("s999", 1, 30.0, 0.0)
    assert len(lease._numbers) <= 64
