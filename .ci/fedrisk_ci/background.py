"""Run background work at the lowest weight that this machine lets us give it.

``nice`` alone has no effect here: with autogroup scheduling (``kernel.sched_autogroup_enabled``)
the kernel shares a CPU between sessions first, and a nice value counts only inside one. Nearly
every process under test has a session of its own. A cgroup counts over sessions.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SUPERVISE = Path(__file__).with_name("supervise.py")
AUTOGROUP = Path("proc/sys/kernel/sched_autogroup_enabled")
PROOF = 1.0
"""Seconds of CPU time that the two spinners of the proof share."""
_START = 0.4
"""Seconds that the spinners have to start before they count."""
_SPIN = """
import os, sys, time
cpu, begin, end = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
os.sched_setaffinity(0, {cpu})
time.sleep(max(0.0, begin - time.monotonic()))
before = time.process_time()
while time.monotonic() < end:
    pass
print(time.process_time() - before)
"""


@dataclass(frozen=True)
class Background:
    """How background work is started.

    Attributes:
        how: Which of the ways holds, in words.
        group: The cgroup's folder, if it is one.
        normal: The group's file of its weight, and the value that other work has.
        nice: Whether ``nice`` goes before the command.
    """

    how: str
    group: Path | None = None
    normal: tuple[str, str] = ("", "")
    nice: bool = False

    def restore_weight(self) -> None:
        """Give background work its full share, so that what is stopped can end in time."""
        if self.group:
            (self.group / self.normal[0]).write_text(self.normal[1])

    def command(self, command: list[str]) -> list[str]:
        """The command line that runs ``command`` under its supervisor in the background."""
        options = ["--group", str(self.group)] if self.group else []
        before = ["nice", "-n", "19"] if self.nice else []
        return [sys.executable, "-I", str(SUPERVISE), *options, *before, *command]


def _own_path(root: Path, controller: str) -> str:
    """This process's group in a hierarchy; the empty controller is version 2."""
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path.strip("/")
    return ""


def _make_group(root: Path, name: str) -> Background | None:
    """A new cgroup of the lowest weight; none where that is refused."""
    for line in (root / "proc/mounts").read_text().splitlines():
        _, at, kind, options, *_ = line.split()
        mount = root / at.lstrip("/")
        if kind == "cgroup" and "cpu" in options.split(","):
            version, parent = "v1", mount / _own_path(root, "cpu")
        elif kind == "cgroup2" and "cpu" in _words(mount / "cgroup.controllers"):
            # Below the root: a group that has processes may hand no controller to its own groups.
            version, parent = "v2", mount
        else:
            continue
        group = parent / name
        try:
            if version == "v2" and "cpu" not in _words(mount / "cgroup.subtree_control"):
                (mount / "cgroup.subtree_control").write_text("+cpu")
            group.mkdir()
        except OSError:
            continue
        least = ("cpu.shares", "2", "1024") if version == "v1" else ("cpu.weight", "1", "100")
        for file, value, normal in (("cpu.idle", "1", "0"), least):
            if not (group / file).exists():
                continue
            try:
                (group / file).write_text(value)
            except OSError:
                continue
            how = f"cgroup {version} with {file} {value}"
            return Background(how, group=group, normal=(file, normal))
        group.rmdir()
    return None


def _words(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


@contextmanager
def background(name: str, root: Path = Path("/")) -> Iterator[Background]:
    """Find the way that works here; what it changes on the machine is put back.

    Args:
        name: A new cgroup's name.
        root: Where ``proc`` and the cgroup mounts are; a test has its own.
    """
    made = _make_group(root, name)
    if made and made.group:
        try:
            yield made
        finally:
            _remove(made.group)
        return
    switch = root / AUTOGROUP
    before = switch.read_text().strip() if switch.exists() else "0"
    if before == "0":
        yield Background("nice 19 (no autogroup here)", nice=True)
        return
    try:
        switch.write_text("0")
    except OSError:
        yield Background("nice 19, which autogroup confines to one session: weak", nice=True)
        return
    try:
        yield Background("nice 19, with autogroup off for this run", nice=True)
    finally:
        switch.write_text(before)


def _remove(group: Path) -> None:
    """Remove an empty cgroup; its last process may take a moment to leave."""
    for _ in range(100):
        try:
            group.rmdir()
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.1)


def share(how: Background, seconds: float = PROOF) -> float:
    """The share of one CPU that background work gets beside one other busy process.

    Two spinners are pinned on the same CPU, each in a session of its own.

    Returns:
        Between 0 and 1; a half where the weight has no effect.
    """
    cpu = max(os.sched_getaffinity(0))
    begin = time.monotonic() + _START
    spin = [sys.executable, "-I", "-c", _SPIN, str(cpu), str(begin), str(begin + seconds)]
    plain = [sys.executable, "-I", str(SUPERVISE), *spin]
    spinners = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        for command in (plain, how.command(spin))
    ]
    used = []
    for each in spinners:
        try:
            used.append(float(each.communicate(timeout=seconds + 30)[0]))
        except subprocess.TimeoutExpired:
            # On a busy machine it may not even have started.
            each.kill()
            each.communicate()
            used.append(0.0)
    return used[1] / sum(used) if sum(used) else 0.0
