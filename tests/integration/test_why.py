"""``vppd why`` of a running daemon: the whole chain from a dispatcher's order to the jobs of a simulated Slurm, and back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.dispatch_rig import VPPD, Room, raised, until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """One demo."""
    with raised(tmp_path_factory.mktemp("why"), "5") as room:
        yield room


def why(room: Room, asset: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the command as an operator would."""
    argv = [VPPD, "why", asset, "-c", str(room.running.config), *more]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


def chain(room: Room, asset: str) -> dict[str, Any]:
    """Return the chain as JSON."""
    found = why(room, asset, "--json")
    assert found.returncode == 0, found.stderr
    said: dict[str, Any] = json.loads(found.stdout)
    return said


def test_the_chain_is_told_from_the_order_to_the_meter(room: Room) -> None:
    """Order, need, setpoint with its outcome, job by job what was chosen, measured before and after, who covers the rest."""
    d, rest_w = room.dispatcher, room.meters.mean_w("main-a", 3.0)
    sent = d.order("limit", "main-a", rest_w - 90e3)
    d.accepted(sent)
    until("jobs are chosen", lambda: bool((chain(room, "hall-a")["chosen"] or {}).get("jobs")), 60.0)

    def has_fallen() -> bool:
        said = chain(room, "hall-a")
        delivered_frac = (said["measured"] or {}).get("delivered_frac") or 0.0
        return delivered_frac > 0.5 and said["told"]["outcome"] is not None

    until("power has fallen, and what came of the setpoint is known", has_fallen, 60.0)
    said = chain(room, "hall-a")
    assert [(o["kind"], o["issuer"], o["resource"]) for o in said["orders"]] == [("limit", d.issuer, "main-a")]
    assert said["needs"][0]["node"] == "main-a"
    assert said["wanted"]["command"] == "setpoint"
    assert said["told"]["outcome"] in (
        "confirmed",
        "unknown",
        None,
    )  # while power still falls the next one is under way
    assert said["told"]["cause"] == said["orders"][0]["order_id"]
    assert all(
        job["reason"].startswith(f"tier {job['tier']}") for job in said["chosen"]["jobs"] if job["wanted"] != 1.0
    )
    assert said["measured"]["before_w"] > said["measured"]["now_w"]
    text = why(room, "hall-a").stdout
    for word in ("ordered", "needed", "decided", "told", "chosen", "measured", "job "):
        assert f"\n{word}" in f"\n{text}" or word in text, text
    other = why(room, "ups-a").stdout
    assert "ordered" in other
    assert "chosen" not in other


def test_an_unknown_asset_is_named_with_those_there_are(room: Room) -> None:
    """One line, and an exit code."""
    found = why(room, "hall-z")
    assert found.returncode != 0
    assert "there is no asset 'hall-z'; there are: " in found.stderr
    assert "hall-a" in found.stderr
    assert "Traceback" not in found.stderr
