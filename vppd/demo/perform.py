"""The performance: the stage is raised, the script played, the audience shown, everything taken down."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
from rich.console import Console
from rich.live import Live

from vppd.demo.acts import Result
from vppd.demo.children import Child, Failed
from vppd.demo.dispatcher import connected
from vppd.demo.plantfile import PARTIES
from vppd.demo.record import Record, keep
from vppd.demo.script import Stage, play
from vppd.demo.signals import stop_event
from vppd.demo.stage import Options, Set, raised
from vppd.demo.stall import Stall
from vppd.demo.trade import MARKET
from vppd.demo.view import Scene, line, picture, statement
from vppd.errors import DeviceError
from vppd.grid.signing import KeyRing, read_jwks
from vppd.runtime.clock import SystemClock

SHOW_S = 1.0
PLAIN_S = 5.0
INTERRUPTED = 130


async def perform(options: Options, console: Console) -> int:
    """Run the demo until it is over or SIGINT or SIGTERM comes, and return the exit status."""
    stop = stop_event(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    show = asyncio.create_task(_show(options, console))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([show, stopped], return_when=asyncio.FIRST_COMPLETED)
        if show.done():
            return show.result()
        return INTERRUPTED if options.once else 0
    finally:
        await _cancelled(show, stopped)


async def _show(options: Options, console: Console) -> int:
    console.print(f"vppd demo: raising the stage in {options.folder}")
    async with raised(options) as things:
        record = Record(tuple(things.meters), things.storage_on)
        scene = Scene(record, _title(options, things), said="everything is up")
        console.print(f"{scene.title} | {things.demo_json}")
        try:
            async with _audience(scene, things, console):
                await _until_over(options, things, scene)
        finally:
            if scene.results:
                console.print(statement(scene.results))
    return int(any(not result.passed for result in scene.results)) if options.once else 0


async def _until_over(options: Options, things: Set, scene: Scene) -> None:
    """Play the script, or wait; whichever process falls first ends it."""
    fallen = asyncio.create_task(things.processes.fallen(*([] if options.script else [things.daemon])))
    course = asyncio.create_task(_course(options, things, scene))
    try:
        done, _ = await asyncio.wait([fallen, course], return_when=asyncio.FIRST_COMPLETED)
        if fallen in done:
            raise Failed(_obituary(fallen.result()))
        course.result()
    finally:
        await _cancelled(fallen, course)


async def _course(options: Options, things: Set, scene: Scene) -> None:
    loop = asyncio.get_running_loop()
    end_s = None if options.duration_s is None else loop.time() + options.duration_s
    try:
        async with asyncio.timeout_at(end_s):
            if options.script and options.daemon:
                await _script(options, things, scene)
                scene.said = "the script is over; ^C ends the demo"
            if not options.once:
                await asyncio.Event().wait()
    except TimeoutError:
        if options.once:
            scene.results.append(Result("script", (), (f"not over within {options.duration_s:g} s",)))


async def _script(options: Options, things: Set, scene: Scene) -> None:
    keys = KeyRing(read_jwks(PARTIES.agent_id, json.loads(things.keys.jwks.read_text(encoding="utf-8"))))
    now = SystemClock().now
    async with connected(things.line, PARTIES, things.keys.issuer.signer(), keys, now) as dispatcher:
        stage = Stage(
            dispatcher=dispatcher,
            record=scene.record,
            room=things.room,
            speed=options.speed,
            seed=options.seed,
            say=lambda text: setattr(scene, "said", text),
            stall=await _stall(things),
        )
        await play(stage, scene.results.append)


async def _stall(things: Set) -> Stall | None:
    """Return where the market can be opened, None when the daemon has no trading desk."""
    try:
        answer = await things.client.get(f"http://{things.http}/api/v1/market")
    except httpx.HTTPError:
        return None
    if answer.status_code != httpx.codes.OK:
        return None
    return Stall(things.processes, things.line, PARTIES, things.keys.market, MARKET, things.keys.jwks)


@asynccontextmanager
async def _audience(scene: Scene, things: Set, console: Console) -> AsyncIterator[None]:
    """Keep the record and show it meanwhile: live in a terminal, as lines elsewhere."""
    async with AsyncExitStack() as stack:
        tasks: list[asyncio.Task[None]] = []
        shown = _plain(scene, console)
        if console.is_terminal:
            live = stack.enter_context(Live(console=console, auto_refresh=False, screen=True))
            shown = _live(scene, live)
        stack.push_async_callback(_cancel_all, tasks)
        tasks += [
            asyncio.create_task(work)
            for work in (keep(scene.record, things.meters, things.room), _listen(scene, things), shown)
        ]
        yield


async def _live(scene: Scene, live: Live) -> None:
    while True:
        live.update(picture(scene, *live.console.size), refresh=True)
        await asyncio.sleep(SHOW_S)


async def _plain(scene: Scene, console: Console) -> None:
    """Print a line when something new is said, and every few seconds anyway."""
    loop = asyncio.get_running_loop()
    said, due_s = "", 0.0
    while True:
        if scene.said != said or loop.time() >= due_s:
            console.print(line(scene), highlight=False, soft_wrap=True)
            said, due_s = scene.said, loop.time() + PLAIN_S
        await asyncio.sleep(SHOW_S / 2.0)


async def _listen(scene: Scene, things: Set) -> None:
    """Follow what the daemon says of itself."""
    while things.http:
        try:
            answer = await things.client.get(f"http://{things.http}/api/v1/state")
            state: dict[str, Any] = answer.raise_for_status().json()
            scene.state = state
        except (httpx.HTTPError, json.JSONDecodeError):
            scene.state = {}
        await asyncio.sleep(SHOW_S)


def _title(options: Options, things: Set) -> str:
    parts = [f"vppd demo · {PARTIES.vpp_id}", f"broker {things.line.host}:{things.line.port}"]
    parts += [f"http://{things.http}"] if things.http else ["no daemon"]
    parts += [f"speed {options.speed:g}"] if options.speed != 1.0 else []
    return " · ".join(parts)


def _obituary(child: Child) -> str:
    return f"{child.name} ended by itself, status {child.process.returncode}; the end of {child.log}:\n{child.tail()}"


async def _cancel_all(tasks: list[asyncio.Task[None]]) -> None:
    await _cancelled(*tasks)


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks and wait until they are gone; one that failed by itself is heard."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception) and not isinstance(result, (DeviceError, Failed)):
            raise result
