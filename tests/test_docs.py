"""The guides say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import ROOT
from vppd.grid.reasons import Reason

GUIDES = (*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md")


def test_the_dispatcher_reads_every_reason() -> None:
    """Every reason for a rejection is in the dispatcher's guide, and no other."""
    text = (ROOT / "docs" / "dispatcher.md").read_text(encoding="utf-8").partition("| reason | what it means |")[2]
    text = text.partition("\n\n")[0]
    assert re.findall(r"^\| `([a-z_]+)` \|", text, flags=re.MULTILINE) == [reason.value for reason in Reason]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_links_lead_somewhere(guide: Path) -> None:
    """Every relative link in a guide leads to a file that is there."""
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", guide.read_text(encoding="utf-8"))
    missing = [link for link in links if not (guide.parent / link).exists()]
    assert not missing
