"""Files that a configuration names: they are there, and secrets are nobody else's to read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vppd.config.table import Problem

BROKER_FILES = ("ca_file", "cert_file", "key_file", "password_file")
"""Keys of what a connection to a broker may need."""
SECRETS = frozenset({"client_secret_file", "key_file", "password_file", "token_file"})
"""Keys of files that only we may read."""


def file_problems(wanted: Mapping[str, Path | None]) -> list[Problem]:
    """Return what is wrong with files, by the keys that name them; None is not asked for."""
    files = {key: file for key, file in wanted.items() if file is not None}
    found = [Problem(key, f"there is no readable file {file}") for key, file in files.items() if not file.is_file()]
    open_to_all = [
        Problem(key, f"{file} can be read by others", "mode 0600")
        for key, file in files.items()
        if key.rpartition(".")[2] in SECRETS and file.is_file() and file.stat().st_mode & 0o077
    ]
    return found + open_to_all
