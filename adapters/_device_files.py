"""Where profiles of devices are found, and what stands in them."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

from vppd.errors import ConfigError


def search_path() -> tuple[Path, ...]:
    """Return the folders where a profile's name is looked up, first found wins.

    Here and now, the system's, the checkout's, the installed package's.
    """
    return (
        Path("config/devices"),
        Path("/etc/vppd/devices"),
        Path(__file__).resolve().parent.parent / "config" / "devices",
        Path(sys.prefix) / "share" / "vppd" / "devices",
    )


def find(name: str) -> Path:
    """Return the file of a profile, given by name or path. Raises ConfigError that lists what there is."""
    if name.endswith(".toml") or "/" in name:
        return Path(name)
    for folder in search_path():
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    known = sorted({path.stem for folder in search_path() for path in folder.glob("*.toml")})
    raise ConfigError(f"profile: there is no profile {name!r} (there are: {', '.join(known) or 'none'})")


def content_of(path: Path) -> dict[str, Any]:
    """Return what stands in the file of a profile. Raises ConfigError when it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
