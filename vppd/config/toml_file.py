"""A TOML file as it stands."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from vppd.config.table import InvalidConfig, Problem


def content_of(path: Path) -> dict[str, Any]:
    """Return what stands in a TOML file. Raises InvalidConfig when it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(path, (Problem("-", f"cannot be read: {error.strerror}"),)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(path, (Problem("-", f"is not valid TOML: {error}"),)) from error
