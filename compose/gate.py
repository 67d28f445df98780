"""The only way out of a hospital's network: to the SuperLink's port and to the store's S3 port.

``python gate.py PORT=HOST:PORT ...`` listens on each port and passes what comes on to its target.
A hospital's SuperNode has a network that nothing but its gate is in, so that it can reach neither
another hospital nor any other port of the SuperLink or the store; and because a gate comes with its
hospital, a new hospital changes no network of a container that runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from functools import partial

CONNECT = 10.0
"""Seconds in which the target must answer."""
CHUNK = 65536
LINGER = 10.0
"""Seconds in which one side may go on after the other has said its last."""

running: set[asyncio.Task[None] | None] = set()
"""asyncio itself would let go of a connection's task before it is done."""


async def carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Pass on what comes until there is no more, and say so to the target.

    Args:
        source: Where it comes from.
        target: Where it goes.
    """
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK):
            target.write(data)
            await target.drain()
        target.write_eof()


async def serve(
    host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Pass one connection on.

    Args:
        host: The target's name, looked up anew each time, for it may have been restarted.
        port: The target's port.
        reader: What the caller says.
        writer: What the caller is told.
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
    """Reach the target and pass on both ways until both are done; see ``serve``."""
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
            # A target that was killed says nothing more, not even that it is gone.
            if rest:
                await asyncio.wait(rest, timeout=LINGER)
            for way in rest:
                way.cancel()


async def main(targets: list[str]) -> None:
    """Listen until SIGTERM.

    Args:
        targets: ``PORT=HOST:PORT`` each.
    """
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    for each in targets:
        own, _, target = each.partition("=")
        host, _, port = target.rpartition(":")
        await asyncio.start_server(partial(serve, host, int(port)), "0.0.0.0", int(own))
        print(f"port {own} leads to {host}:{port}", flush=True)
    await over.wait()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: gate.py PORT=HOST:PORT ...")
    asyncio.run(main(sys.argv[1:]))
