"""Register profiles from files, and what is wrong with one: every mistake names the file and the key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from adapters._device_files import content_of, find
from adapters._profile import Profile
from vppd.errors import ConfigError


def load(name: str) -> Profile:
    """Return a checked profile. Raises ConfigError naming the file and every wrong key."""
    path = find(name)
    return parse(content_of(path), path)


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
