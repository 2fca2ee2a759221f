"""CPU packages on a tree of files like the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from vppd.agent.rapl import Package, packages
from vppd.errors import Refused
from vppd.runtime.clock import FakeClock

RANGE_UJ = 262_143_328_850


class Tree:
    """A powercap tree with one package, its cores, and the platform."""

    def __init__(self, root: Path) -> None:
        self.root, self.clock = root, FakeClock()
        for zone, name in (("intel-rapl:0", "package-0"), ("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys")):
            self.put(f"{zone}/name", name)
        for file, value in (
            ("constraint_0_power_limit_uw", 350_000_000),
            ("constraint_0_max_power_uw", 350_000_000),
            ("energy_uj", RANGE_UJ - 50_000_000),
            ("max_energy_range_uj", RANGE_UJ),
            ("enabled", 1),
        ):
            self.put(f"intel-rapl:0/{file}", value)

    def put(self, file: str, value: object) -> None:
        """Write a file of the tree."""
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n", encoding="ascii")

    def package(self) -> Package:
        """Return the one package."""
        (found,) = packages(self.root, self.clock.mono_s)
        return found


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A package near the end of its energy counter."""
    return Tree(tmp_path)


def test_only_packages_are_devices(tree: Tree) -> None:
    """Cores are a part of their package and the platform is none; without powercap there is nothing."""
    assert tree.package().name == "package-0"
    assert packages(tree.root / "nothing", tree.clock.mono_s) == []


def test_power_is_energy_over_time_also_over_the_wrap(tree: Tree) -> None:
    """The counter wraps at its range: 180 W before, over and after the wrap, and the energy goes on."""
    package = tree.package()
    assert package.read().power_w is None
    for counter_uj in (RANGE_UJ - 5_000_000 + 135_000_000 - RANGE_UJ, 310_000_000):
        tree.clock.advance(1.0)
        tree.put("intel-rapl:0/energy_uj", counter_uj)
        reading = package.read()
        assert reading.power_w == pytest.approx(180.0)
    assert reading.energy_ws == pytest.approx(360.0)


def test_a_wrap_of_unknown_range_is_not_guessed(tree: Tree) -> None:
    """Without the range, a counter that fell gives no power for that stretch, and none is invented."""
    (tree.root / "intel-rapl:0/max_energy_range_uj").unlink()
    package = tree.package()
    package.read()
    tree.clock.advance(1.0)
    tree.put("intel-rapl:0/energy_uj", 5)
    assert package.read().power_w is None
    tree.clock.advance(1.0)
    tree.put("intel-rapl:0/energy_uj", 90_000_005)
    assert package.read().power_w == pytest.approx(90.0)


def test_readings_close_together_do_not_divide_by_nothing(tree: Tree) -> None:
    """Two looks at the same instant give the power known before."""
    package = tree.package()
    package.read()
    tree.clock.advance(1.0)
    tree.put("intel-rapl:0/energy_uj", RANGE_UJ - 40_000_000)
    assert package.read().power_w == package.read().power_w == pytest.approx(10.0)


def test_the_long_term_limit_is_set(tree: Tree) -> None:
    """The limit goes into constraint 0 in microwatts and is read back."""
    package = tree.package()
    package.set_cap(180.5)
    assert (tree.root / "intel-rapl:0/constraint_0_power_limit_uw").read_text(encoding="ascii") == "180500000"
    assert package.cap_w() == 180.5
    assert package.limits is not None
    assert package.limits.max_w == 350.0


def test_a_package_that_limits_nothing_says_so(tree: Tree) -> None:
    """Switched off in the kernel, a limit would do nothing: it is refused, with what to do."""
    tree.put("intel-rapl:0/enabled", 0)
    with pytest.raises(Refused, match="switched off"):
        tree.package().set_cap(180.0)


def test_a_package_without_a_limit_can_be_watched(tree: Tree) -> None:
    """Where the kernel offers energy alone there are readings, no limits and no clocks."""
    (tree.root / "intel-rapl:0/constraint_0_power_limit_uw").unlink()
    package = tree.package()
    assert package.limits is None
    assert package.read().cap_w is None
    with pytest.raises(Refused):
        package.set_cap(180.0)
    with pytest.raises(Refused, match="no locked clocks"):
        package.lock_clocks((1, 2))


def test_an_unreadable_counter_is_missing_not_zero(tree: Tree) -> None:
    """Without the energy counter there is neither power nor energy."""
    (tree.root / "intel-rapl:0/energy_uj").unlink()
    reading = tree.package().read()
    assert reading.power_w is None
    assert reading.energy_ws is None
    assert reading.cap_w == 350.0
