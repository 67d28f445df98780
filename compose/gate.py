"""The only way out of a hospital's network: to the SuperLink's port and to the store's S3 port.

``python gate.py PORT=HOST:PORT ...`` listens on each port and forwards connections to its target.
A hospital's SuperNode is alone with its gate in a network, so that it can reach neither another
hospital nor any other port of the SuperLink or the store. A gate starts with its hospital, so a
new hospital changes no network of a running container.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from functools import partial

CONNECT = 10.0
"""Seconds to connect to the target."""
CHUNK = 65536
LINGER = 10.0
"""Seconds that one side may continue after the other has closed."""

running: set[asyncio.Task[None] | None] = set()
"""References to the connections' tasks, which asyncio does not keep."""


async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Forward bytes until the source closes, and then close the target for writing.

    Args:
        source: The stream to read.
        target: The stream to write.
    """
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK):
            target.write(data)
            await target.drain()
        target.write_eof()


async def serve(
    host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Forward one connection.

    Args:
        host: The target's name; resolved each time, because a restart changes its address.
        port: The target's port.
        reader: The caller's stream to read.
        writer: The caller's stream to write.
    """
    this = asyncio.current_task()
    running.add(this)
    try:
        await connect(host, port, reader, writer)
    finally:
        running.discard(this)


async def connect(
    host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Connect to the target and forward in both directions until both close; see ``serve``."""
    with contextlib.closing(writer):
        try:
            there, back = await asyncio.wait_for(asyncio.open_connection(host, port), CONNECT)
        except (OSError, TimeoutError) as error:
            print(f"{host}:{port} does not answer: {error or 'no connection in time'}", flush=True)
            return
        with contextlib.closing(back):
            ways = {
                asyncio.create_task(carry(reader, back)),
                asyncio.create_task(carry(there, writer)),
            }
            _, rest = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            # A target that was killed does not close its connection.
            if rest:
                await asyncio.wait(rest, timeout=LINGER)
            for way in rest:
                way.cancel()


async def main(targets: list[str]) -> None:
    """Listen until SIGTERM.

    Args:
        targets: ``PORT=HOST:PORT`` each.
    """
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    for each in targets:
        own, _, target = each.partition("=")
        host, _, port = target.rpartition(":")
        await asyncio.start_server(partial(serve, host, int(port)), "0.0.0.0", int(own))
        print(f"port {own} forwards to {host}:{port}", flush=True)
    await stopped.wait()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: gate.py PORT=HOST:PORT ...")
    asyncio.run(main(sys.argv[1:]))
