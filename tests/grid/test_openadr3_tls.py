"""The REST link over TLS, against a server that wants our certificate."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.grid.certificates import Authority
from vppd.config.openadr import OpenAdrConfig
from vppd.errors import Unreachable
from vppd.grid.openadr3.rest import open_vtn

pytestmark = pytest.mark.integration
ANSWERS: dict[str, Any] = {"/auth/server": {}, "/auth/token": {"access_token": "t"}, "/programs": [{"id": "p-1"}]}


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request and close."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    path = head.split(" ")[1].partition("?")[0].removeprefix("/3.1.0")
    body = json.dumps(ANSWERS[path]).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()
    writer.close()


@asynccontextmanager
async def served(authority: Authority) -> AsyncIterator[str]:
    """Yield the address of a server with a certificate of this authority that asks for one of its clients."""
    pair = authority.issue("vtn")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    context.load_cert_chain(pair.cert, pair.key)
    context.verify_mode = ssl.CERT_REQUIRED
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/3.1.0"
    finally:
        server.close()
        await server.wait_closed()


async def programs(url: str, folder: Path, **files: Path) -> list[Any]:
    """Return the programs the server shows. Raises Unreachable."""
    secret = folder / "secret"
    secret.write_text("999", encoding="utf-8")
    said = {"url": url, "client_id": "ven", "client_secret_file": secret, **files}
    async with open_vtn(OpenAdrConfig.model_validate(said), asyncio.get_running_loop().time) as link:
        return await link.programs()


async def test_certificates_on_both_sides(tmp_path: Path) -> None:
    """With the server's authority and our own certificate the link works."""
    authority = Authority(tmp_path)
    ours = authority.issue("ven")
    async with served(authority) as url:
        found = await programs(url, tmp_path, ca_file=authority.file, cert_file=ours.cert, key_file=ours.key)
        assert found == [{"id": "p-1"}]


async def test_a_server_of_another_authority(tmp_path: Path) -> None:
    """A server whose certificate is of somebody else, or that nobody vouches for, is not talked to: no secret leaves us."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()
    theirs, ours = Authority(tmp_path / "theirs"), Authority(tmp_path / "ours")
    async with served(theirs) as url:
        for files in ({"ca_file": ours.file}, {}):
            with pytest.raises(Unreachable, match="certificate"):
                await programs(url, tmp_path, **files)


async def test_without_our_certificate(tmp_path: Path) -> None:
    """A server that wants our certificate and gets none is unreachable, which is tried again."""
    authority = Authority(tmp_path)
    async with served(authority) as url:
        with pytest.raises(Unreachable):
            await programs(url, tmp_path, ca_file=authority.file)
