"""The life of orders: what starts, replaces, releases and ends them."""

from vppd.core.state import Phase
from vppd.model import OrderKind, Signal
from vppd.testing.cycles import World


def states(world: World) -> list[tuple[str, str]]:
    """Return every order with the phase it moved to, in order."""
    return [(t.order.order_id, str(t.progress.phase)) for t in world.transitions]


def test_an_order_is_scheduled_then_active_then_completed() -> None:
    """An order for later waits, begins at its start and ends at its end."""
    world = World()
    world.order(OrderKind.LIMIT, "main-a", 400e3, after_s=5, for_s=10)
    world.step(30)
    assert states(world) == [("order-0", "scheduled"), ("order-0", "active"), ("order-0", "completed")]


def test_the_latest_dsx_target_of_a_feed_wins() -> None:
    """A later load target replaces the earlier one on its feed and leaves other feeds alone."""
    world = World()
    world.order(OrderKind.LIMIT, "main-a", 400e3, for_s=None, protocol="dsx_flex", group="m1")
    world.order(OrderKind.LIMIT, "main-b", 400e3, for_s=None, protocol="dsx_flex", group="m1")
    world.step(3)
    world.order(OrderKind.LIMIT, "main-a", 300e3, for_s=None, protocol="dsx_flex", group="m2")
    world.step(2)
    assert [o.order_id for o in world.orders] == ["order-1", "order-2"]
    assert ("order-0", "completed") in states(world)


def test_targets_of_one_message_do_not_replace_each_other() -> None:
    """Two targets of one message on one feed are a schedule, not a replacement."""
    world = World()
    world.order(OrderKind.LIMIT, "main-a", 400e3, for_s=20, protocol="dsx_flex", group="m1")
    world.order(OrderKind.LIMIT, "main-a", 350e3, for_s=20, after_s=10, protocol="dsx_flex", group="m1")
    world.step(15)
    assert len(world.history[-1].demands) == 2


def test_null_gives_the_feed_back() -> None:
    """A release on a feed ends the issuer's targets there and completes itself."""
    world = World()
    world.order(OrderKind.LIMIT, "main-a", 400e3, for_s=None, protocol="dsx_flex", group="m1")
    world.step(3)
    world.order(OrderKind.RELEASE, "main-a", for_s=None, protocol="dsx_flex", group="m2")
    world.step(1)
    assert not world.orders
    assert ("order-0", "completed") in states(world)
    assert ("order-1", "completed") in states(world)


def test_one_issuer_cannot_release_another() -> None:
    """A release by somebody else leaves an order in force."""
    world = World()
    world.order(OrderKind.LIMIT, "main-a", 400e3)
    world.order(OrderKind.RELEASE, "main-a", issuer="intruder")
    world.step(2)
    assert [o.order_id for o in world.orders] == ["order-0"]


def test_an_interval_that_passed_unserved_is_aborted() -> None:
    """An order whose time went by while nothing could be done is aborted, never reported as completed."""
    world = World()
    world.order(OrderKind.LIMIT, "main-a", 400e3, after_s=-100, for_s=50)
    world.step(1)
    assert [(t.order.order_id, t.progress.phase) for t in world.transitions] == [("order-0", Phase.ABORTED)]


def test_a_silent_regulation_signal_counts_as_zero() -> None:
    """After ten seconds without a signal the order falls back to its base point."""
    world = World()
    world.step(2)
    world.order(OrderKind.REGULATION, "dc1", 50e3)
    world.step(1)
    world.signals = [Signal("tso", -1.0, world.mono_s)]
    (demand,) = world.step(1).demands
    base_w = world.state.progress["order-0"].baseline_w
    assert demand.upper_w == base_w - 50e3
    assert demand.steady_upper_w == base_w
    (demand,) = world.step(11).demands
    assert demand.upper_w == base_w


def test_an_order_waits_until_its_meter_has_been_read() -> None:
    """A reduction starts only once there is a baseline to reduce from."""
    world = World(silent={"poi-a"})
    world.order(OrderKind.REDUCE, "main-a", 50e3)
    assert world.step(3).demands == ()
    world.silent.clear()
    world.step(1)
    assert world.state.progress["order-0"].baseline_w > 400e3
