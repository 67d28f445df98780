"""Run stages in lanes: one after the other in a lane, the lanes side by side, all within a limit.

A stage starts when those that it needs have passed. When one fails, only what needs it does not
run, so that one run shows all that is wrong; but a stage may say that its failure ends everything.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from fedrisk_ci.background import SUPERVISE, Background
from fedrisk_ci.junit import first_failed
from fedrisk_ci.supervise import LONGEST_STOP, descendants

TAIL = 40
"""Lines of a failed stage's output that are shown again at the end."""
_POLL = 0.1


@dataclass(frozen=True)
class Stage:
    """One command of the run.

    Attributes:
        name: How it is called in tables and on the command line.
        command: What is run, in the checkout.
        needs: Stages that must have passed before.
        pytest: It is a pytest run by make, so it gets a report, a cache of its own, and
            ``arguments``.
        arguments: Further arguments of pytest.
        background: It runs at the lowest weight.
        daemons: What it leaves running is meant to stay.
        retry: Tried once more when it fails, with the tests that failed.
        ends_all: When it fails the whole run ends.
        apart: Stages that end before it starts where the machine is slow.
        skip: Says why it need not run, or nothing.
    """

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    pytest: bool = False
    arguments: tuple[str, ...] = ()
    background: bool = False
    daemons: bool = False
    retry: bool = False
    ends_all: bool = False
    apart: tuple[str, ...] = ()
    skip: Callable[[], str] = field(default=str)


@dataclass(frozen=True)
class Lane:
    """Stages one after the other.

    Attributes:
        stages: In their order.
        limit: Seconds that it may work; waiting for other lanes does not count.
    """

    stages: tuple[Stage, ...]
    limit: float


@dataclass
class Result:
    """What became of a stage.

    Attributes:
        name: Its name.
        state: ``passed``, ``FLAKY`` (passed when tried once more), ``FAILED``, ``skipped`` or
            ``not run``.
        reason: Why it is in this state, where that needs words.
        wall: Seconds.
        cpu: CPU seconds of the command and all that it started, except services of others, such
            as a Docker engine.
        reports: pytest's reports of its tries.
        flaky: The check that failed the first of two tries, if the second passed: the first one
            that failed, for the later ones of a stage often fail because of it.
        log: Its output.
    """

    name: str
    state: str = "not run"
    reason: str = ""
    wall: float = 0.0
    cpu: float = 0.0
    reports: list[Path] = field(default_factory=list)
    flaky: str = ""
    log: Path | None = None

    @property
    def good(self) -> bool:
        """Whether what needs this stage may start."""
        return self.state in ("passed", "FLAKY", "skipped")


class Run:
    """All lanes of one run.

    Args:
        lanes: What is run; needs of stages that are in no lane are taken as given.
        folder: Where outputs and reports are written.
        limit: Seconds for the whole.
        background: How background stages are started.
        out: Where the outputs of finished stages are shown.
        slow: Says from what has ended why the machine is slow, or nothing.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        folder: Path,
        limit: float,
        background: Background,
        out: TextIO = sys.stdout,
        slow: Callable[[Mapping[str, Result]], str] = lambda _: "",
    ) -> None:
        self.lanes = lanes
        self.results = {s.name: Result(s.name) for lane in lanes for s in lane.stages}
        self._folder = folder
        self._deadline = time.monotonic() + limit
        self._background = background
        self._out = out
        self._slow = slow
        self._ended = {name: threading.Event() for name in self.results}
        self._stop = threading.Event()
        self._stopped_by = ""
        self._background_alone = False
        self._printing = threading.Lock()

    def stop(self, reason: str) -> None:
        """End everything that runs, and start nothing more."""
        self._stopped_by = self._stopped_by or reason
        self._stop.set()

    def run(self) -> list[Result]:
        """Run all lanes to their end.

        Returns:
            What became of each stage, in the order of the lanes.
        """
        threads = [threading.Thread(target=self._run_lane, args=(lane,)) for lane in self.lanes]
        for each in threads:
            each.start()
        while any(each.is_alive() for each in threads):
            time.sleep(_POLL)
            if time.monotonic() > self._deadline:
                self.stop("the limit of the whole run")
            self._share_when_alone()
        return list(self.results.values())

    def _share_when_alone(self) -> None:
        """Give background work its full share once nothing runs beside it."""
        if self._background_alone:
            return
        stages = [stage for lane in self.lanes for stage in lane.stages]
        background = {stage.name for stage in stages if stage.background}
        beside = [s.name for s in stages if not s.background and not background & set(s.needs)]
        if all(self._ended[name].is_set() for name in beside):
            self._background_alone = True
            self._background.restore_weight()

    @property
    def passed(self) -> bool:
        """Whether every stage did what it had to."""
        return all(each.good for each in self.results.values())

    def _say(self, text: str) -> None:
        with self._printing:
            print(text, file=self._out, flush=True)

    def _run_lane(self, lane: Lane) -> None:
        left = lane.limit
        for stage in lane.stages:
            result = self.results[stage.name]
            result.reason = self._wait_for(stage) or ("" if left > 0 else "its lane's limit")
            if not result.reason:
                began = time.monotonic()
                try:
                    self._run_stage(stage, result, left)
                except Exception as error:  # noqa: BLE001 - a lane must not end in silence
                    result.state, result.reason = "FAILED", f"{type(error).__name__}: {error}"
                left -= time.monotonic() - began
            if stage.ends_all and result.state == "FAILED":
                self.stop(f"{stage.name} failed")
            self._ended[stage.name].set()

    def _wait_for(self, stage: Stage) -> str:
        """Wait until the needed stages have ended; why this one must not start, or nothing."""
        for name in stage.needs:
            ended = self._ended.get(name)
            while ended and not ended.wait(_POLL) and not self._stop.is_set():
                pass
            if not self._stop.is_set() and ended and not self.results[name].good:
                return f"needs {name}"
        apart = [self._ended[name] for name in stage.apart if name in self._ended]
        if any(not ended.is_set() for ended in apart) and (why := self._slow(self.results)):
            self._say(f"--- {stage.name} waits for {', '.join(stage.apart)}: {why}")
            while not all(ended.wait(_POLL) for ended in apart) and not self._stop.is_set():
                pass
        return self._stopped_by

    def _run_stage(self, stage: Stage, result: Result, left: float) -> None:
        why = stage.skip()
        if why:
            result.state, result.reason = "skipped", why
            self._say(f"\n=== {stage.name}: skipped: {why}")
            return
        self._say(f"--- {time.strftime('%H:%M:%S', time.gmtime())} {stage.name} starts")
        result.log = self._folder / f"{stage.name}.log"
        deadline = min(time.monotonic() + left, self._deadline)
        code = self._try(stage, result, deadline)
        if code and stage.retry and not result.reason:
            code = self._try(stage, result, deadline)
            result.state = "FAILED" if code else "FLAKY"
            failed = first_failed(result.reports[0]) if result.reports else ""
            result.flaky = "" if code else failed or stage.name
        else:
            result.state = "FAILED" if code else "passed"
        if code and not result.reason:
            result.reason = f"exit code {code}"
        took = f"{result.wall:.0f} s, {result.cpu:.0f} CPU-s"
        # Its output in one piece, so that lanes do not mix.
        output = result.log.read_text(errors="replace")
        end = f"=== {stage.name}: {result.state} {result.reason}".rstrip()
        self._say(f"\n=== {stage.name} ({took})\n{output.rstrip()}\n{end}")

    def _try(self, stage: Stage, result: Result, deadline: float) -> int:
        """Run a stage's command once and return its exit code."""
        assert result.log is not None
        command = list(stage.command)
        if stage.pytest:
            report = self._folder / f"{result.log.stem}.{len(result.reports) + 1}.xml"
            cache = self._folder / f"{result.log.stem}.cache"
            words = [*stage.arguments, f"--junitxml={report}", "-o", f"cache_dir={cache}"]
            command.append(f"PYTEST_ARGS={' '.join(words + ['--lf'] * bool(result.reports))}")
            result.reports.append(report)
        if stage.background:
            line = self._background.command(command)
        else:
            options = ["--daemons"] * stage.daemons
            line = [sys.executable, "-I", str(SUPERVISE), *options, *command]
        began = time.monotonic()
        with result.log.open("ab") as log:
            process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        code, cpu, why = self._await(process, deadline, stage.background)
        result.wall += time.monotonic() - began
        result.cpu += cpu
        result.reason = why
        return code or (1 if why else 0)

    def _await(
        self, process: subprocess.Popen[bytes], deadline: float, background: bool
    ) -> tuple[int, float, str]:
        """Wait for a supervisor; its code, all its CPU seconds, and why it was stopped."""
        why = ""
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                return process.returncode, usage.ru_utime + usage.ru_stime, why
            now = time.monotonic()
            if not why and (self._stop.is_set() or now > deadline):
                why = f"stopped: {self._stopped_by or 'its time limit'}"
                if background:
                    self._background.restore_weight()
                os.kill(process.pid, signal.SIGTERM)
                deadline = now + LONGEST_STOP
            elif why and now > deadline:
                for each in (*descendants(process.pid), process.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(each, signal.SIGKILL)
            time.sleep(_POLL)


def tails(results: Sequence[Result]) -> str:
    """The last lines of each stage that failed."""
    found = []
    for each in results:
        if each.state == "FAILED":
            lines = each.log.read_text(errors="replace").splitlines() if each.log else []
            found += [f"\n=== {each.name} FAILED ({each.reason}); its last lines:", *lines[-TAIL:]]
    return "\n".join(found)
