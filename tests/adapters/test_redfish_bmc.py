"""One BMC: sessions, versions, rate limits, dialects, certificates; against real HTTP(S) servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop

from adapters._redfish_bmc import Bmc
from adapters._redfish_lanes import Pace
from adapters._redfish_limits import Limit, Place, Style, read_limit
from adapters._redfish_link import Account, BmcLink, Denied, Stale
from adapters._redfish_search import Search
from adapters._redfish_tls import anybody, by_authority, by_fingerprint
from tests.adapters.redfish_bmcs import PASSWORD, USER, Behaviour, FakeBmc, farm
from tests.deploy.test_mosquitto import Authority
from vppd.errors import Garbled, Refused, Unreachable

EM = "/redfish/v1/Chassis/Node/EnvironmentMetrics"
Rig = tuple[FakeBmc, Bmc]


@asynccontextmanager
async def bmc(how: Behaviour, *, session: bool = True, **more: Any) -> AsyncIterator[Rig]:
    """Yield a served BMC and the adapter's end of it."""
    async with farm({"n": how}) as served:
        link = a_link(served.addresses["n"], session=session)
        try:
            yield served["n"], Bmc(link, **more)
        finally:
            await link.close(0.5)


def a_link(url: str, *, session: bool = True, verify: ssl.SSLContext | bool = False, timeout_s: float = 5.0) -> BmcLink:
    """Return a link with the farm's account and no pace to keep."""
    return BmcLink("n", url, Account(USER, PASSWORD, session), verify, timeout_s, Pace(1000.0, 1000))


async def capped(given: Bmc, cap_w: float) -> float | None:
    """Cap a node and return what is read back. [W]"""
    await given.look()
    return (await given.put(cap_w, given.priors(), first=True)).cap_w


# ---- sessions ------------------------------------------------------------------------------------------------------


async def test_one_session_serves_every_request() -> None:
    """The token is used again and again, and the session is ended on the way out."""
    how = Behaviour()
    async with bmc(how) as (fake, given):
        for _ in range(5):
            await given.look()
        assert (fake.logins, fake.without_token, len(fake._sessions)) == (1, 0, 1)
    assert len(fake._sessions) == 0


async def test_an_ended_session_is_opened_again_once() -> None:
    """A BMC that forgets its sessions, also between reading and writing, is logged in to again; the wish gets through."""
    async with bmc(Behaviour(tokens=3)) as (fake, given):
        assert await capped(given, 4000.0) == 4000.0
        assert fake.logins > 1
    async with bmc(Behaviour(tokens=0)) as (fake, given):
        with pytest.raises(Denied, match="There is no valid session"):
            await given.look()
        assert fake.logins == 1


async def test_basic_authentication_needs_no_session() -> None:
    """Where it is asked for, name and password go with each request."""
    async with bmc(Behaviour(), session=False) as (fake, given):
        assert await capped(given, 4000.0) == 4000.0
        assert (fake.logins, fake.without_token) == (0, 0)


# ---- versions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(Behaviour(strict=True), id="needed"),
        pytest.param(Behaviour(etags=False), id="unknown"),
        pytest.param(Behaviour(etags=False, strict=True), id="needed-and-unknown"),
        pytest.param(Behaviour(strict=True, races=1), id="changed-once"),
        pytest.param(Behaviour(strict=True, races=2), id="changed-by-every-reading"),
    ],
)
async def test_versions_of_resources_are_kept_to(how: Behaviour) -> None:
    """A PATCH names the version it is about; when the resource has changed it is read again and the limit set all the same."""
    async with bmc(how) as (fake, given):
        assert await capped(given, 4000.0) == 4000.0
        assert fake.how.limit_w == 4000.0


async def test_a_limit_changed_since_it_was_read_is_not_overwritten_at_first() -> None:
    """What was written down before the first change must be true: else nothing is changed, and it is read again."""
    async with bmc(Behaviour(limit_w=9000.0)) as (fake, given):
        await given.look()
        fake.how.limit_w, fake.version = 7000.0, fake.version + 1
        with pytest.raises(Stale):
            await given.put(4000.0, given.priors(), first=True)
        assert fake.how.limit_w == 7000.0
        await given.look()
        assert (await given.put(4000.0, given.priors(), first=True)).cap_w == 4000.0


# ---- pace ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "date"), [(429, False), (503, False), (429, True)])
async def test_a_busy_bmc_gets_the_time_it_asks_for(status: int, date: bool) -> None:
    """Retry-After is kept, in seconds or as a date; then the request is made again."""
    after = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True) if date else "1"
    async with bmc(Behaviour()) as (fake, given):
        await given.look()
        fake.how.busy, fake.how.busy_status, fake.how.retry_after = 1, status, "1"
        loop = asyncio.get_running_loop()
        began_s, asked = loop.time(), fake.requests
        if date:
            fake.how.retry_after = after
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5):
                    await given.look()
            assert fake.requests == asked + 1
        else:
            await given.look()
            assert loop.time() - began_s >= 0.9
            assert fake.requests == asked + 2


async def test_a_bmc_that_stays_busy_is_unreachable() -> None:
    """It is not asked for ever, and what it says is passed on."""
    async with bmc(Behaviour(busy=100)) as (_, given):
        with pytest.raises(Unreachable, match="The BMC is busy"):
            await given.look()


async def test_one_request_at_a_time() -> None:
    """However many want something of a BMC, it sees one request at once."""
    async with bmc(Behaviour(least_s=0.01, most_s=0.03)) as (fake, given):
        await asyncio.gather(*(given.link.get(EM) for _ in range(10)))
        assert fake.most_at_once == 1


@pytest.mark.looptime
async def test_requests_are_paced() -> None:
    """After a burst so many a second go through, and none before the BMC wants any."""
    pace, loop = Pace(10.0, 5), asyncio.get_running_loop()
    for _ in range(25):
        await pace.wait()
    assert loop.time() == pytest.approx(2.0, abs=0.11)
    pace.hold_off(7.0)
    await pace.wait()
    assert loop.time() == pytest.approx(9.0, abs=0.11)


# ---- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dead", ["silent", "gone"])
async def test_a_dead_bmc_is_unreachable(dead: str) -> None:
    """It takes connections and says nothing, or closes them."""
    async with farm({"n": Behaviour(dead=dead)}) as served:
        link = a_link(served.addresses["n"], timeout_s=0.3)
        with pytest.raises(Unreachable, match="n: does not answer"):
            await Bmc(link).look()
        await link.close(1.0)


async def test_a_refusal_has_the_words_of_the_bmc() -> None:
    """Extended error messages are passed on."""
    async with bmc(Behaviour(refuses=True)) as (_, given):
        with pytest.raises(Refused, match="HTTP 400: The property SetPoint is read only"):
            await capped(given, 4000.0)


async def test_a_closed_connection_is_opened_again() -> None:
    """BMCs close idle connections; the next request goes through all the same."""
    async with bmc(Behaviour()) as (fake, given):
        await given.look()
        fake.hang_up()
        await asyncio.sleep(0.05)
        assert (await given.look()).cap_w is None


# ---- dialects ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["metrics", "control", "power"])
@pytest.mark.parametrize("shows_after", [0, 1])
async def test_dialects(style: str, shows_after: int) -> None:
    """A limit is found, set, read back (also from a BMC that needs a while) and put back in each dialect."""
    async with bmc(Behaviour(style=style, limit_w=9000.0, shows_after=shows_after)) as (fake, given):
        assert (await given.look()).cap_w == 9000.0
        priors = given.priors()
        assert (await given.put(4000.5, priors, first=True)).cap_w == 4000.0
        assert fake.how.limit_w == 4000.0
        await given.look()
        assert given.power_w == 4000.0
        assert (await given.restore(priors)).cap_w == 9000.0
        assert fake.how.limit_w == 9000.0


async def test_percent_is_rounded_down() -> None:
    """A limit in whole percent of the highest allowed is never above what was asked for."""
    async with bmc(Behaviour(style="percent")) as (fake, given):
        assert await capped(given, 4599.0) == 4500.0
        assert fake.patches[-1]["SetPoint"] == 45


async def test_percent_of_nobody_knows_what_is_refused() -> None:
    """A range in percent tells no watts: it must be given, and is then used."""
    place = Place("/redfish/v1/Chassis/C/Controls/PowerLimit_0", Style.CONTROL)
    body = {"SetPoint": 100, "SetPointUnits": "%", "AllowableMin": 40, "AllowableMax": 100, "ControlMode": "Manual"}
    with pytest.raises(Refused, match="percent_of_w"):
        read_limit(place, body, "", None).units(2000.0)
    limit = read_limit(place, body, "", 5000.0)
    assert (limit.set_w, limit.min_w, limit.max_w, limit.units(2600.0), limit.units(100.0)) == (
        5000,
        2000,
        5000,
        52,
        40,
    )


async def test_gpus_share_what_the_rest_of_the_node_leaves() -> None:
    """Eight GPUs are limited so that with what the node was measured to draw beside them the cap is kept."""
    how = Behaviour(style="gpus", demand_w=6000.0)
    async with bmc(how) as (fake, given):
        cap = await given.look()
        assert (given.power_w, cap.cap_w, cap.min_cap_w, given.max_cap_w()) == (6000.0, None, 3600.0, 7600.0)
        assert (await given.put(5200.0, given.priors(), first=True)).cap_w == 5200.0
        assert [patch["PowerLimitWatts"]["SetPoint"] for patch in fake.patches] == [400] * 8


async def test_gpus_with_an_unknown_rest_are_refused() -> None:
    """What nobody measures must be told: GPU limits alone do not keep a node's cap."""
    for other_w, found_w in ((None, None), (2800.0, 5200.0)):
        async with bmc(Behaviour(style="gpus", gpus=6), other_w=other_w, limit_by="processors") as (fake, given):
            fake.meterless = True
            if found_w is None:
                with pytest.raises(Refused, match="other_w"):
                    await capped(given, 5200.0)
            else:
                assert await capped(given, 5200.0) == found_w


async def test_a_bmc_without_limits_is_refused() -> None:
    """Nothing to set is a clear no, with what was looked for."""
    async with bmc(Behaviour(style="bare")) as (_, given):
        with pytest.raises(Refused, match="no power limit that can be set"):
            await given.look()


class Tree(BmcLink):
    """A BMC whose resources are a table."""

    def __init__(self, resources: dict[str, dict[str, Any]]) -> None:
        super().__init__("n", "http://127.0.0.1:9", Account("", ""), False, 1.0, Pace(1e3, 1000))
        self._resources = resources

    async def _ask(self, method: str, path: str, *_: Any) -> Any:
        request = httpx.Request(method, f"http://127.0.0.1:9{path}")
        found = self._resources.get(path)
        return self._judged(httpx.Response(404 if found is None else 200, json=found or {}, request=request), path)


def ref(path: str) -> dict[str, Any]:
    """Return a link."""
    return {"@odata.id": path}


async def test_parts_within_parts_count_once() -> None:
    """Modules in a baseboard have limits and the baseboard a meter; GPUs inside the modules are not counted again."""
    c = "/redfish/v1/Chassis"
    tree: dict[str, Any] = {c: {"Members": [ref(f"{c}/{name}") for name in ("Board", "M0", "M1", "G0")]}}
    for name, within, kind in (
        ("Board", "", "RackMount"),
        ("M0", "Board", "Module"),
        ("M1", "Board", "Module"),
        ("G0", "M0", "Module"),
    ):
        links = {"Links": {"ContainedBy": ref(f"{c}/{within}")}} if within else {}
        tree[f"{c}/{name}"] = {"ChassisType": kind, "EnvironmentMetrics": ref(f"{c}/{name}/E"), **links}
        tree[f"{c}/{name}/E"] = {"PowerWatts": {"Reading": 100.0}}
        if within:
            tree[f"{c}/{name}/E"]["PowerLimitWatts"] = {"SetPoint": 700}
    link = Tree(tree)
    layout = await Search(link, "auto").layout()
    assert [place.path for place in layout.places] == [f"{c}/M0/E", f"{c}/M1/E"]
    assert (layout.whole, layout.meters) == (False, (f"{c}/Board/E",))
    await link.close(1.0)


async def test_an_excerpt_points_to_its_control() -> None:
    """A limit that is an excerpt of a Control is set there; a link to another host is never followed."""
    c = "/redfish/v1/Chassis"
    for source, expected in (
        (f"{c}/N/Controls/PowerLimit", Style.CONTROL),
        ("https://evil.example/Controls/x", Style.METRICS),
    ):
        limit = {"SetPoint": 700, "DataSourceUri": source}
        tree: dict[str, Any] = {c: {"Members": [ref(f"{c}/N")]}, f"{c}/N": {"EnvironmentMetrics": ref(f"{c}/N/E")}}
        tree[f"{c}/N/E"] = {"PowerLimitWatts": limit}
        link = Tree(tree)
        layout = await Search(link, "chassis").layout()
        assert [place.style for place in layout.places] == [expected]
        await link.close(1.0)


@pytest.mark.parametrize(
    "body",
    [{}, {"PowerLimitWatts": None}, {"PowerLimitWatts": {}}, {"PowerLimitWatts": []}],
)
def test_nonsense_is_garbled(body: dict[str, Any]) -> None:
    """A resource that has lost its limit is Garbled, never a limit of 0."""
    with pytest.raises(Garbled):
        read_limit(Place("/p", Style.METRICS), body, "", None)


@pytest.mark.parametrize("value", [None, True, "700", float("nan"), -1])
def test_what_is_no_number_is_no_limit(value: object) -> None:
    """Missing is missing."""
    limit = read_limit(Place("/p", Style.METRICS), {"PowerLimitWatts": {"SetPoint": value}}, "", None)
    assert limit.set_w is None


def test_a_mode_is_chosen_among_those_allowed() -> None:
    """A disabled limit is enabled in a way that its BMC knows; one in force is left as it is."""
    place = Place("/p", Style.METRICS)
    assert Limit(place, 900.0, "Disabled").mode_for_cap() == "Automatic"
    assert Limit(place, 900.0, "Disabled", ("Disabled", "Manual")).mode_for_cap() == "Manual"
    assert Limit(place, 900.0, "Override").mode_for_cap() == ""
    assert Limit(Place("/p", Style.CONTROL), 900.0, "Automatic").mode_for_cap() == "Manual"


# ---- certificates --------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority with certificates for two BMCs on loopback."""
    found = Authority(tmp_path)
    found.issue("ca", ca=True)
    found.issue("bmc")
    found.issue("other")
    return found


def context(folder: Path, name: str) -> ssl.SSLContext:
    """Return a BMC's end of TLS."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    return found


def fingerprint(path: Path) -> str:
    """Return a certificate's SHA-256."""
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(path.read_text(encoding="ascii"))).hexdigest()


async def test_who_a_bmc_is_taken_for(authority: Authority, tmp_path: Path) -> None:
    """An authority or a fingerprint vouches for a BMC; to one that nobody vouches for not even the user name is sent."""
    pinned, wrong = fingerprint(tmp_path / "bmc.crt"), fingerprint(tmp_path / "other.crt")
    accepted = [by_authority(tmp_path / "ca.crt"), by_fingerprint(pinned.upper()), anybody()]
    refused = [by_authority(None), by_fingerprint(wrong)]
    async with farm({"n": Behaviour()}, context(tmp_path, "bmc")) as served:
        for verify in accepted:
            link = a_link(served.addresses["n"], verify=verify)
            assert await Bmc(link).look()
            await link.close(0.5)
        asked = served["n"].requests
        for verify in refused:
            link = a_link(served.addresses["n"], verify=verify)
            with pytest.raises(Unreachable, match="certificate"):
                await Bmc(link).look()
            await link.close(0.5)
        assert served["n"].requests == asked


def test_a_fingerprint_counts_in_the_daemons_loop_too(authority: Authority, tmp_path: Path) -> None:
    """The daemon runs on uvloop, which has TLS code of its own."""

    async def asked(sha256: str) -> int:
        async with farm({"n": Behaviour()}, context(tmp_path, "bmc")) as served:
            link = a_link(served.addresses["n"], verify=by_fingerprint(sha256))
            with contextlib.suppress(Unreachable):
                await Bmc(link).look()
            await link.close(0.5)
            return served["n"].requests

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(asked(fingerprint(tmp_path / "bmc.crt"))) > 0
        assert runner.run(asked(fingerprint(tmp_path / "other.crt"))) == 0
