"""Forks of a process that stays without threads: how one ends, and what it hands back."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from io import BufferedReader
from typing import Any, BinaryIO


def run_and_exit(work: Callable[[], object]) -> None:
    """In a forked child: do the work and leave without the parent's handlers.

    Args:
        work: What the child is for.
    """
    from flwr.supercore.exit import exit_handler

    from tasks.launch.process_tree import die_with_parent

    code = 1
    try:
        die_with_parent()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        # The parent's handlers would close its connections.
        exit_handler.registered_exit_handlers.clear()
        work()
        code = 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 1
    except BaseException:  # noqa: BLE001  (a fork must never return into the parent's code)
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def done_in_a_fork(work: Callable[[], Any]) -> Any:
    """Let a fork do the work, with the threads that it starts, and return what it returns.

    Its arrays are read into their places at once: of a large table each process holds one copy.

    Args:
        work: What the fork does.

    Raises:
        EOFError: The fork ended before it had handed over all.
    """
    source, sink = os.pipe()

    def handed_over() -> None:
        with os.fdopen(sink, "wb") as file:
            write_whole(work(), file)

    child = os.fork()
    if child == 0:
        os.close(source)
        run_and_exit(handed_over)
    os.close(sink)
    try:
        with os.fdopen(source, "rb") as file:
            return read_whole(file)
    finally:
        os.waitpid(child, 0)


def write_whole(value: object, file: BinaryIO) -> None:
    """Write a value for another process of our own, its arrays from where they are in memory."""
    arrays: list[pickle.PickleBuffer] = []
    text = pickle.dumps(value, protocol=5, buffer_callback=arrays.append)
    views = [array.raw() for array in arrays]
    pickle.dump((text, [view.nbytes for view in views]), file)
    for view in views:
        file.write(view)


def read_whole(file: BufferedReader) -> Any:
    """Read what ``write_whole`` has written.

    Raises:
        EOFError: It is not all there.
    """
    text, sizes = pickle.load(file)
    arrays = [bytearray(size) for size in sizes]
    for array in arrays:
        if file.readinto(array) < len(array):
            raise EOFError("a process of this one ended before it had handed over all")
    return pickle.loads(text, buffers=arrays)
