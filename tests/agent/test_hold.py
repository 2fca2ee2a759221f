"""What is held at the devices: told, read back, remembered before, set again, given back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.agent.fake import Fake
from vppd.agent.hold import Holder
from vppd.agent.restore import Prior, PriorFile
from vppd.agent.wire import Ask, Command
from vppd.errors import Garbled, Refused, Unreachable

A, B = "GPU-a", "GPU-b"


def command(node_cap_w: float | None = None, devices: Mapping[str, Ask] | None = None) -> Command:
    """Return a command for the node."""
    return Command("id", "vppd", 1, 30.0, node_cap_w, devices or {})


class Rig:
    """Two devices, a holder, and its file."""

    def __init__(self, folder: Path) -> None:
        self.a, self.b = Fake(A), Fake(B)
        self.file = PriorFile(folder, "boot")
        self.holder = self.another()

    def another(self) -> Holder:
        """Return the holder of a process that starts now."""
        holder = Holder(self.file, 0.5, ["gpu"])
        holder.devices = {A: self.a, B: self.b}
        return holder

    @property
    def limits_w(self) -> tuple[float, float]:
        """The limits as the devices have them. [W]"""
        return self.a.limit_w, self.b.limit_w

    def outcomes(self) -> tuple[str, str]:
        """Return how the last command went at both."""
        return self.holder.outcomes[A].outcome, self.holder.outcomes[B].outcome


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """Two devices at 700 W."""
    return Rig(tmp_path)


def test_a_node_cap_is_shared_and_given_back(rig: Rig) -> None:
    """A node cap lowers the limits together to it; giving back brings every limit to what it was, and the file goes."""
    rig.b.limit_w = 600.0
    rig.holder.apply(command(1000.0))
    assert rig.limits_w == (500.0, 500.0)
    assert rig.holder.cap_w == 1000.0
    assert rig.outcomes() == ("confirmed", "confirmed")
    assert rig.holder.restore()
    assert rig.limits_w == (700.0, 600.0)
    assert not rig.file.path.exists()


def test_what_was_there_is_on_disk_before_the_first_change(rig: Rig) -> None:
    """The moment a device is told its first limit, the file already says what was there."""
    seen: list[float] = []

    def spy(cap_w: float) -> None:
        seen.append(json.loads(rig.file.path.read_text(encoding="utf-8"))["devices"][A]["cap_w"])
        rig.a.limit_w = cap_w

    rig.a.set_cap = spy  # type: ignore[method-assign]
    rig.holder.apply(command(devices={A: Ask(500.0)}))
    assert seen == [700.0]


def test_nothing_is_changed_that_cannot_be_remembered(rig: Rig) -> None:
    """With a disk that takes nothing, no device is told anything and the command is refused for each."""
    rig.file.path = rig.file.path.parent / "gone" / "prior.json"
    rig.holder.apply(command(1000.0))
    assert rig.limits_w == (700.0, 700.0)
    assert rig.outcomes() == ("rejected", "rejected")


def test_a_device_that_is_not_named_goes_back(rig: Rig) -> None:
    """Commands are absolute: the second one names only B, so A has its old limit again."""
    rig.holder.apply(command(devices={A: Ask(500.0)}))
    rig.holder.apply(command(devices={B: Ask(450.0)}))
    assert rig.limits_w == (700.0, 450.0)
    assert set(rig.file.load()) == {B}


def test_out_of_range_is_refused_for_that_device_alone(rig: Rig) -> None:
    """A cap below the floor or above the most is refused with the range; the other device follows."""
    rig.holder.apply(command(devices={A: Ask(349.0), B: Ask(400.0)}))
    assert rig.limits_w == (700.0, 400.0)
    assert rig.outcomes() == ("rejected", "confirmed")
    assert "350 to 700" in rig.holder.outcomes[A].detail
    rig.holder.apply(command(devices={A: Ask(701.0), "GPU-x": Ask(400.0)}))
    assert rig.holder.outcomes[A].outcome == rig.holder.outcomes["GPU-x"].outcome == "rejected"


def test_a_refused_device_still_counts_in_the_node_cap(rig: Rig) -> None:
    """A device whose own cap is refused gets its share: the node as a whole keeps within its cap."""
    rig.holder.apply(command(1000.0, {A: Ask(100.0), B: Ask(400.0)}))
    assert rig.limits_w == (600.0, 400.0)
    assert rig.outcomes() == ("rejected", "confirmed")


def test_a_cap_never_raises_a_limit(rig: Rig) -> None:
    """Somebody limits A to 300 W: a cap of 500 W for it leaves that alone, and so does giving it back."""
    rig.a.limit_w = 300.0
    rig.holder.apply(command(devices={A: Ask(500.0)}))
    assert rig.a.limit_w == 300.0
    rig.holder.apply(command(1300.0))
    assert rig.a.limit_w == 300.0
    rig.holder.restore()
    assert rig.a.limit_w == 300.0


def test_a_foreign_revert_is_set_again(rig: Rig) -> None:
    """A limit that somebody raised is found by the next look and set again; one that is lower stays, also at the end."""
    rig.holder.apply(command(1000.0))
    rig.a.limit_w, rig.b.limit_w = 700.0, 400.0
    _, reverted = rig.holder.look()
    assert reverted == (A,)
    assert rig.limits_w == (500.0, 400.0)
    assert "set again" in rig.holder.outcomes[A].detail
    assert rig.holder.look()[1] == ()
    rig.holder.restore()
    assert rig.limits_w == (700.0, 400.0)


def test_a_lower_foreign_limit_survives_new_commands(rig: Rig) -> None:
    """While somebody else holds a device lower than we do, our commands above that change nothing there."""
    rig.holder.apply(command(devices={A: Ask(500.0)}))
    rig.a.limit_w = 250.0
    rig.holder.apply(command(devices={A: Ask(600.0)}))
    assert rig.a.limit_w == 250.0
    assert rig.outcomes()[0] == "confirmed"
    assert "250 W" in rig.holder.outcomes[A].detail


def test_a_limit_that_does_not_stay_is_rejected(rig: Rig) -> None:
    """A device that says yes and keeps its old limit is not confirmed."""
    rig.a.sticky = True
    rig.holder.apply(command(devices={A: Ask(500.0)}))
    assert rig.outcomes()[0] == "rejected"
    assert "reads 700 W" in rig.holder.outcomes[A].detail


def test_no_answer_is_unknown_and_settled_by_the_next_look(rig: Rig) -> None:
    """A device that does not answer when told is unknown; once it answers, the next look sets what was meant."""
    rig.a.set_error = Unreachable("busy")
    rig.holder.apply(command(devices={A: Ask(500.0)}))
    assert rig.outcomes()[0] == "unknown"
    assert A in rig.file.load()
    rig.a.set_error = None
    rig.holder.look()
    assert rig.a.limit_w == 500.0
    assert rig.outcomes()[0] == "confirmed"


def test_a_clear_no_leaves_nothing_behind(rig: Rig) -> None:
    """A device we may not control is refused and is not waited for at the end."""
    rig.a.set_error = Refused("Insufficient Permissions")
    rig.holder.apply(command(devices={A: Ask(500.0)}))
    assert rig.outcomes()[0] == "rejected"
    assert rig.holder.clear
    assert not rig.file.path.exists()


def test_a_lost_device_holds_up_nobody(rig: Rig) -> None:
    """With one GPU lost the other follows and goes back; the lost one is put back when it answers again."""
    rig.holder.apply(command(1000.0))
    rig.a.error = Unreachable("GPU is lost")
    readings, _ = rig.holder.look()
    assert set(readings) == {B}
    rig.holder.apply(command(900.0))
    assert rig.outcomes() == ("unknown", "confirmed")
    assert not rig.holder.restore()
    assert rig.b.limit_w == 700.0
    rig.a.error = None
    assert rig.holder.restore()
    assert rig.a.limit_w == 700.0


def test_what_a_dead_agent_left_is_adopted_and_put_back(rig: Rig) -> None:
    """The next process puts back what was there before the first, not what the dead one had set."""
    rig.a.limit_w = 650.0
    rig.holder.apply(command(devices={A: Ask(500.0, (210, 1200))}))
    again = rig.another()
    again.adopt()
    assert not again.clear
    assert again.restore()
    assert rig.a.limit_w == 650.0
    assert rig.a.clocks is None


def test_adopted_limits_stay_the_prior_ones(rig: Rig) -> None:
    """A command to an agent that could not put back yet does not take a dead agent's cap for what was there."""
    rig.holder.apply(command(devices={A: Ask(500.0)}))
    again = rig.another()
    again.adopt()
    again.apply(command(devices={A: Ask(450.0)}))
    assert rig.a.limit_w == 450.0
    again.restore()
    assert rig.a.limit_w == 700.0


def test_clocks_are_locked_watched_and_freed(rig: Rig) -> None:
    """Locked clocks are set again when the clock runs above the lock, and freed with null."""
    rig.holder.apply(command(devices={A: Ask(None, (210, 1200), says_cap=False)}))
    assert rig.a.clocks == (210, 1200)
    assert rig.a.limit_w == 700.0
    rig.a.free_clocks()
    assert rig.holder.look()[1] == (A,)
    assert rig.a.clocks == (210, 1200)
    rig.holder.apply(command(devices={A: Ask(500.0)}))
    assert [rig.a.clocks] == [None]
    assert rig.a.limit_w == 500.0


def test_clocks_go_back_to_what_the_site_locks(tmp_path: Path) -> None:
    """Where the site locks clocks without us, giving back locks those, since the driver cannot tell."""
    device = Fake(A)
    holder = Holder(PriorFile(tmp_path, "boot"), 0.5, ["gpu"], clocks=(345, 1500))
    holder.devices = {A: device}
    holder.apply(command(devices={A: Ask(None, (210, 1200))}))
    holder.restore()
    assert device.clocks == (345, 1500)


def test_a_node_cap_covers_a_device_that_only_has_clocks(rig: Rig) -> None:
    """A device named for its clocks alone gets its share of the node cap; one named with null is left out."""
    rig.holder.apply(command(1000.0, {A: Ask(None, (210, 1200), says_cap=False)}))
    assert rig.limits_w == (500.0, 500.0)
    rig.holder.apply(command(500.0, {A: Ask(None)}))
    assert rig.limits_w == (700.0, 500.0)


def test_lowering_comes_before_raising(rig: Rig) -> None:
    """When power moves from one device to the other, the one that gives is told first."""
    order: list[str] = []
    rig.holder.apply(command(devices={A: Ask(600.0), B: Ask(400.0)}))
    rig.a.calls, rig.b.calls = order, order
    rig.holder.apply(command(devices={A: Ask(400.0), B: Ask(600.0)}))
    assert order == ["400 W", "600 W"]
    rig.holder.apply(command(devices={A: Ask(600.0), B: Ask(400.0)}))
    assert order[2:] == ["400 W", "600 W"]


def test_the_same_again_writes_nothing(rig: Rig) -> None:
    """A renewal with the same caps tells the devices nothing and leaves the file alone."""
    rig.holder.apply(command(devices={A: Ask(500.0)}))
    rig.a.calls.clear()
    before = rig.file.path.stat().st_mtime_ns
    rig.holder.apply(command(devices={A: Ask(500.0)}))
    assert rig.a.calls == []
    assert rig.file.path.stat().st_mtime_ns == before


def test_a_reboot_has_put_everything_back(rig: Rig, tmp_path: Path) -> None:
    """After a reboot the file is forgotten: the limits are the firmware's again, and not ours to change."""
    rig.holder.apply(command(1000.0))
    assert PriorFile(tmp_path, "another boot").load() == {}
    assert not rig.file.path.exists()


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"version": 2}', '{"version": 1, "boot_id": "boot", "devices": {"GPU-a": {"cap_w": "many"}}}'],
)
def test_a_file_without_sense_is_left_for_people(tmp_path: Path, text: str) -> None:
    """A file of limits that makes no sense is neither guessed at nor removed."""
    file = PriorFile(tmp_path, "boot")
    file.path.write_text(text, encoding="utf-8")
    with pytest.raises(Garbled, match=r"prior\.json"):
        file.load()
    assert file.path.exists()


def test_the_file_comes_back_as_written(tmp_path: Path) -> None:
    """What is saved is what is loaded."""
    priors = {A: Prior(700.0, 350.0, clocks=True), B: Prior()}
    file = PriorFile(tmp_path, "boot")
    file.save(priors)
    assert file.load() == priors
