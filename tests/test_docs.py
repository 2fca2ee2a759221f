"""The guides say what the code says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from tests.support import ROOT
from vppd.cli import app
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


def commands_in(guide: Path) -> list[str]:
    """Return the vppd commands that a guide tells people to type, without what follows on the line."""
    text = guide.read_text(encoding="utf-8")
    quoted = re.findall(r"`(?:\S*/)?vppd ([a-z][^`]*)`", text)
    fenced = [
        line
        for block in re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in re.findall(r"^(?:sudo )?(?:\S*/)?vppd ([a-z][^#\n|>]*)", block, re.MULTILINE)
    ]
    return [command.strip() for command in (*quoted, *fenced)]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_commands_are_ones_that_there_are(guide: Path) -> None:
    """Every vppd command in a guide has a name and options that the command line knows."""
    known = vars(typer.main.get_command(app))["commands"]
    wrong = []
    for text in commands_in(guide):
        name, *words = shlex.split(text)
        command = known.get(name)
        options = {o for p in (command.params if command else ()) for o in (*p.opts, *p.secondary_opts)}
        unknown = [word for word in words if word.startswith("-") and word != "-" and word.split("=")[0] not in options]
        if command is None or unknown:
            wrong.append(f"vppd {text}: {unknown or 'no such command'}")
    assert not wrong
