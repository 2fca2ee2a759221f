"""Where register profiles are found, and what is wrong with one: every mistake names the file and the key."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapters._profile import Profile
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
    raise ConfigError(f"profile: no register profile {name!r} (there are: {', '.join(known) or 'none'})")


def load(name: str) -> Profile:
    """Return a checked profile. Raises ConfigError naming the file and every wrong key."""
    path = find(name)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return parse(content, path)


def parse(content: Mapping[str, Any], path: Path) -> Profile:
    """Return a checked profile from parsed TOML. Raises ConfigError naming the file and every wrong key."""
    try:
        profile = Profile.model_validate(content)
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {problem}" for problem in _readable(error))) from error
    if profile.profile != path.stem:
        raise ConfigError(f"{path}: profile: is {profile.profile!r}, must be the file's name {path.stem!r}")
    return profile


def _readable(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        yield f"{key}: {item['msg']}" if key else item["msg"].removeprefix("Value error, ")
