"""Forks of a process that stays without threads: how one ends, and what it hands back."""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import sys
from collections.abc import Callable
from io import BufferedReader
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray


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


class Shared:
    """Memory for one array, of which a fork and the process that made it see the same pages."""

    def __init__(self) -> None:
        """Take no memory yet."""
        # Not in /dev/shm, which is small in a container.
        self._file = os.memfd_create("rows")
        self._map: mmap.mmap | None = None

    def empty(self, shape: tuple[int, int]) -> NDArray[np.float64]:
        """An array of float64 in this memory, in the fork; its values are 0.

        Args:
            shape: Rows and columns.
        """
        size = 8 * shape[0] * shape[1]
        if not size or self._map is not None:
            return np.empty(shape)
        os.ftruncate(self._file, size)
        self._map = mmap.mmap(self._file, size)
        return np.frombuffer(self._map).reshape(shape)

    def place(self, array: memoryview) -> int | None:
        """Where an array begins in this memory, in bytes; None if it does not lie in it."""
        if self._map is None:
            return None
        start = np.frombuffer(self._map, np.uint8).ctypes.data
        at = np.frombuffer(array, np.uint8).ctypes.data - start
        return at if 0 <= at <= len(self._map) - array.nbytes else None

    def taken(self) -> memoryview:
        """What the fork has left; what this process or a fork of it writes there is its own."""
        size = os.fstat(self._file).st_size
        return memoryview(mmap.mmap(self._file, size, access=mmap.ACCESS_COPY) if size else b"")

    def close(self) -> None:
        """Keep the memory for what was taken alone."""
        os.close(self._file)


def done_in_a_fork(work: Callable[[Shared], Any]) -> Any:
    """Let a fork do the work, with the threads that it starts, and return what it returns.

    Args:
        work: What the fork does. An array that it makes in the memory that it is given is not
            copied, nor are parts of it: of a large table there is one in all.

    Raises:
        EOFError: The fork ended before it had handed over all.
    """
    source, sink = os.pipe()
    shared = Shared()

    def handed_over() -> None:
        with os.fdopen(sink, "wb") as file:
            write_whole(work(shared), file, shared)

    child = os.fork()
    if child == 0:
        os.close(source)
        run_and_exit(handed_over)
    os.close(sink)
    try:
        with os.fdopen(source, "rb") as file:
            return read_whole(file, shared)
    except (EOFError, pickle.UnpicklingError):
        # A child that is reaped here may have been killed, for memory most likely.
        status, child = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0
        raise EOFError(f"a fork ended with {status} before it had handed over all") from None
    finally:
        if child:
            os.waitpid(child, 0)
        shared.close()


def write_whole(value: object, file: BinaryIO, shared: Shared) -> None:
    """Write a value for another process of our own; of arrays in shared memory only their place."""
    arrays: list[pickle.PickleBuffer] = []
    text = pickle.dumps(value, protocol=5, buffer_callback=arrays.append)
    views = [array.raw() for array in arrays]
    places = [shared.place(view) if view.nbytes else None for view in views]
    pickle.dump((text, [(view.nbytes, at) for view, at in zip(views, places, strict=True)]), file)
    for view, at in zip(views, places, strict=True):
        if at is None:
            file.write(view)


def read_whole(file: BufferedReader, shared: Shared) -> Any:
    """Read what ``write_whole`` has written.

    Raises:
        EOFError: It is not all there.
    """
    text, sizes = pickle.load(file)
    taken, arrays = shared.taken(), list[memoryview]()
    for size, at in sizes:
        array = memoryview(bytearray(size)) if at is None else taken[at : at + size]
        if at is None and file.readinto(array) < size:
            raise EOFError("an array was not handed over whole")
        arrays.append(array)
    return pickle.loads(text, buffers=arrays)
