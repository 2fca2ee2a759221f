"""What parts of a configuration say of each other: names are told apart, and whatever is named is there."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from vppd.config.files import BROKER_FILES, file_problems
from vppd.config.grid import GridConfig
from vppd.config.plant import AssetConfig, FeedConfig
from vppd.config.table import Problem, twice
from vppd.model import Kind


def name_problems(site_id: str, feeds: Sequence[FeedConfig], assets: Sequence[AssetConfig]) -> list[Problem]:
    """Return which names are used for more than one thing."""
    tags, ids = [feed.tag for feed in feeds], [asset.id for asset in assets]
    clash = sorted({site_id, *tags} & set(ids)) + ([site_id] if site_id in tags else [])
    either = "names an asset and a feed or the site: an order could mean either"
    return [
        *(Problem("feeds", f"the tag {tag!r} is used twice") for tag in twice(tags)),
        *(Problem("assets", f"the id {name!r} is used twice") for name in twice(ids)),
        *(Problem("assets", f"{name!r} {either}") for name in clash),
    ]


def wiring_problems(feeds: Sequence[FeedConfig], assets: Sequence[AssetConfig]) -> list[Problem]:
    """Return which assets are on no feed, and which feeds have no meter of their own."""
    tags = [feed.tag for feed in feeds]
    found = [
        Problem(f"assets[{i}].feed", f"there is no feed {asset.feed!r}", ", ".join(tags))
        for i, asset in enumerate(assets)
        if asset.feed not in tags
    ]
    meters = {asset.id: asset.feed for asset in assets if asset.kind is Kind.METER}
    for i, feed in enumerate(feeds):
        if meters.get(feed.meter) != feed.tag:
            on_feed = ", ".join(name for name, tag in meters.items() if tag == feed.tag) or "none is defined yet"
            found.append(Problem(f"feeds[{i}].meter", f"{feed.meter!r} is not a meter on this feed", on_feed))
    return found


def grant_problems(grid: GridConfig, names: Collection[str]) -> list[Problem]:
    """Return which keys are pinned twice, and which grants are for something that is not there."""
    kids = [key.kid for issuer in grid.issuers for key in issuer.keys]
    granted = {
        f"grid.issuers[{i}].grants[{j}].resource": grant.resource
        for i, issuer in enumerate(grid.issuers)
        for j, grant in enumerate(issuer.grants)
    }
    known = {"*", *names}
    return [
        *(Problem("grid.issuers", f"the kid {kid!r} is pinned twice") for kid in twice(kids)),
        *(
            Problem(key, f"there is no {resource!r}", ", ".join(sorted(known)))
            for key, resource in granted.items()
            if resource not in known
        ),
    ]


def grid_file_problems(grid: GridConfig) -> list[Problem]:
    """Return what is wrong with the keys and certificates of the dispatch link."""
    wanted = {"grid.signing.key_file": grid.signing.key_file}
    wanted |= {f"grid.broker.{key}": getattr(grid.broker, key) for key in BROKER_FILES}
    wanted |= {
        f"grid.issuers[{i}].keys[{j}].public_key_file": key.public_key_file
        for i, issuer in enumerate(grid.issuers)
        for j, key in enumerate(issuer.keys)
    }
    return file_problems(wanted)
