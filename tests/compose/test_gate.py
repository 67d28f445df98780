"""A hospital's gate passes on what it is given, to the last byte, and keeps no dead connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import ModuleType

import pytest
from scripts import load_script

from smoke.command import ROOT

DEADLINE = 20.0
Served = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def gate() -> ModuleType:
    return load_script(ROOT / "compose" / "gate.py")


@asynccontextmanager
async def listening(served: Served) -> AsyncIterator[int]:
    server = await asyncio.start_server(served, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def gated(gate: ModuleType, port: int) -> AbstractAsyncContextManager[int]:
    return listening(partial(gate.serve, "127.0.0.1", port))


def within(work: Awaitable[None]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(work, DEADLINE)

    asyncio.run(bounded())


def test_both_ways_are_passed_on_to_the_last_byte(gate: ModuleType) -> None:
    sent = bytes(range(256)) * 4096

    async def doubled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Nothing is said before the caller has said its last.
        writer.write(2 * await reader.read())
        await writer.drain()
        writer.close()

    async def work() -> None:
        async with listening(doubled) as port, gated(gate, port) as own:
            reader, writer = await asyncio.open_connection("127.0.0.1", own)
            writer.write(sent)
            writer.write_eof()
            assert await reader.read() == 2 * sent
            writer.close()
        assert not gate.running

    within(work())


def test_a_target_that_is_away_ends_the_connection(
    gate: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    async def work() -> None:
        async with gated(gate, 9) as own:
            reader, writer = await asyncio.open_connection("127.0.0.1", own)
            assert await reader.read() == b""
            writer.close()

    within(work())
    assert "127.0.0.1:9 does not answer" in capsys.readouterr().out


def test_a_target_that_says_nothing_more_is_let_go(
    gate: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "LINGER", 0.2)

    async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(DEADLINE)

    async def work() -> None:
        async with listening(silent) as port, gated(gate, port) as own:
            _, writer = await asyncio.open_connection("127.0.0.1", own)
            writer.write(b"hello")
            await writer.drain()
            while not gate.running:
                await asyncio.sleep(0.01)
            writer.close()
            while gate.running:
                await asyncio.sleep(0.01)

    within(work())
