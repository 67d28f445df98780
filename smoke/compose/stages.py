"""The stages of ``make compose-smoke``: what each does, and in which order they are done."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

from smoke.command import ROOT, StackError
from smoke.compare import EarlierRun, ProcessRun, check_same
from smoke.compose import isolation
from smoke.compose.pages import Pages
from smoke.compose.run import Trained, over_rest
from smoke.compose.stack import Project
from smoke.ending import attempt, undisturbed
from smoke.images import ready_images, revision
from smoke.table import Table
from smoke.waits import remaining, until
from tasks.local_airflow.api_client import Airflow, AirflowError
from tasks.local_airflow.home import free_port

DAG, ADMIN, NEW = "retrain_stroke", "admin", "hospital-4"
IMAGES = ("airflow", "federation", "hospital", "mlflow", "worker")
FIRST = ("hospital-1", "hospital-2", "hospital-3")
ROUNDS = 3
HOSPITAL = f"hospitals.{NEW}={{title: New, share: {{rows: 900, positive_rate: 0.06}}}}"
CHOICE = ("isolation", "join", "restart", "figures", "pages")
"""Stages that a run can do without."""
ANYBODY = "2468:2468"
"""User that gets the kit from root: not the images' user, as for most who unpack a kit."""
RUN_DEADLINE = 1500.0
REJOIN_DEADLINE = 600.0
APPROVED = "studies:\n  - name: stroke\n"


class Smoke:
    """One stack and the checks on it."""

    def __init__(
        self,
        table: Table,
        options: argparse.Namespace,
        folder: Path,
        wanted: Collection[str] = CHOICE,
    ) -> None:
        """Prepare; nothing is started.

        Args:
            table: Gets the checks.
            options: The command's.
            folder: For the new hospital's kit.
            wanted: Some of ``CHOICE``. With ``join`` the run is of four hospitals and a few rounds,
                without it the study's own.
        """
        self.joins, self.compares = "join" in wanted, "figures" in wanted
        self.hospitals = (*FIRST, NEW) if self.joins else FIRST
        self.table, self.options, self.folder = table, options, folder
        self.ports = {
            "STACK_AIRFLOW_PORT": str(free_port(18080)),
            "STACK_MLFLOW_PORT": str(free_port(15000)),
        }
        self.tag = options.tag
        self.airflow = Airflow("", ADMIN, "")
        self.password = ""
        self.run = f"smoke-{int(time.time())}"
        self.started = False
        self.owner = f"{os.getuid()}:{os.getgid()}" if os.getuid() else ANYBODY
        self.beside: ProcessRun | EarlierRun | None = None

    @property
    def values(self) -> dict[str, str]:
        """What the run's form is given."""
        return {"rounds": str(ROUNDS), "overrides": HOSPITAL} if self.joins else {}

    @property
    def overrides(self) -> list[str]:
        """What the same run needs elsewhere."""
        return [f"federation.rounds={ROUNDS}", HOSPITAL] if self.joins else []

    def variables(self) -> dict[str, str]:
        """Variables of the compose files."""
        kit = {"FEDRISK_USER": self.owner, "STACK_FOLDER": str(ROOT), "STACK": self.options.project}
        # Whatever a .env of the checkout says of a stack that is in use.
        own = {"STACK_ADMIN": ADMIN, "STACK_BIND": "127.0.0.1", "STACK_HOST": "127.0.0.1"}
        return {**self.ports, "STACK_TAG": self.tag, **own, **kit}

    @property
    def stack(self) -> Project:
        """The stack."""
        return Project(self.options.project, ["docker-compose.yaml"], self.variables())

    @property
    def guest(self) -> Project:
        """The project of the new hospital's kit."""
        files = [str(self.folder / NEW / "compose.yaml"), str(ROOT / "compose" / "kit.yaml")]
        return Project(f"{self.options.project}-{NEW}", files, self.variables())

    def alone(self) -> None:
        """Check that nothing is there that would be taken for this stack's, or removed with it.

        Raises:
            StackError: There is something of an earlier one.
        """
        left = self.left()
        names = f"{self.stack.name} {self.guest.name}"
        if not self.table.check(
            "alone", "nothing is left of an earlier stack", not left, ", ".join(left)
        ):
            raise StackError(f"remove it first: {sys.executable} compose/down.py {names}")

    def images(self) -> None:
        """Build the images of this checkout, or use those of a tag."""
        self.tag = ready_images(IMAGES, self.options.tag)
        found = {revision(name, self.tag) for name in IMAGES}
        self.table.check(
            "one-revision", "the images are of one revision", len(found) == 1, ", ".join(found)
        )

    def up(self) -> None:
        """Start the stack."""
        began, self.started = time.monotonic(), True
        self.stack.up(deadline=900)
        states = {name: each["State"] for name, each in self.stack.containers().items()}
        well = {
            name: state["Health"]["Status"] if "Health" in state else state["ExitCode"]
            for name, state in states.items()
        }
        bad = {name: state for name, state in well.items() if state not in ("healthy", 0)}
        took = f"{len(well)} services in {time.monotonic() - began:.0f} s"
        self.table.check(
            "healthy", "all services are healthy or have done their work", not bad, bad or took
        )

    def sign_in(self) -> None:
        """Sign in with the generated password, and not with another."""
        text = self.stack.inside("api-server", "cat", "/run/sign-in/password.json").stdout
        self.password = json.loads(text)[ADMIN]
        url = f"http://127.0.0.1:{self.ports['STACK_AIRFLOW_PORT']}"
        self.airflow = Airflow(url, ADMIN, self.password)
        try:
            Airflow(url, ADMIN, "wrong").active_runs(DAG)
            refused = "let in"
        except AirflowError as error:
            refused = str(error)
        self.table.check("wrong-password", "a wrong password is refused", "401" in refused, refused)
        until("the DAG is there", lambda: self.airflow.dag(DAG), 600)
        errors = self.airflow.import_errors()
        if self.compares and self.beside is None:
            self.beside = ProcessRun(self.folder / "process", self.run, self.overrides)
        self.table.check(
            "dags", "the generated password lets in, and all DAGs are read", not errors, errors
        )

    def join(self) -> None:
        """Bring in a hospital with its kit, without a restart of anything."""
        before = {name: _life(each) for name, each in self.stack.containers().items()}
        kits = f"{self.folder}:/kits"
        self.stack.compose(
            *("run", "--rm", "--no-TTY", "--no-deps", "--volume", kits),
            *("--env", f"KIT_USER={self.owner}", "keys", "python", "/opt/stack/keys.py", NEW),
        )
        (self.folder / NEW / "approved.yaml").write_text(APPROVED, encoding="utf-8")
        until("it is registered", lambda: f"registered {NEW}" in self.stack.log("superlink"), 600)
        self.guest.compose(
            "up", "--detach", "--wait", "--wait-timeout", "600", "gate", deadline=600
        )
        checked = self.guest.compose(
            *("run", "--rm", "--no-deps", "--no-TTY", "--volume", f"{self.folder / NEW}:/kit:ro"),
            *("supernode", "fedrisk", "hospital", "check", "--kit", "/kit"),
            deadline=600,
            check=False,
        )
        self.table.check(
            "kit-check",
            "its kit's own check, before it starts, finds nothing missing",
            checked.returncode == 0,
            checked.stdout or checked.stderr[-500:],
        )
        self.guest.up(deadline=600)
        self.table.check("joined", "a new hospital joins with its kit", True, NEW)
        now = {name: _life(each) for name, each in self.stack.containers().items()}
        changed = [name for name, life in before.items() if now.get(name) != life]
        self.table.check(
            "no-restart", "nothing was restarted for it", not changed, ", ".join(changed)
        )

    def trigger(self) -> None:
        """Start the run: by hand where there is a browser."""
        if self.beside is not None:
            # Side by side on few cores each would take longer than both in turn.
            self.beside.figures(RUN_DEADLINE)
        over_rest(self.table, self.airflow, f"{self.run}-rest")
        before = self.airflow.active_runs(DAG)
        if by_hand := self.pages.trigger(self.values):
            until("the form's run is there", lambda: self.airflow.active_runs(DAG), 600)
        else:
            self.airflow.set_paused(DAG, False)
            given = {"rounds": ROUNDS, "overrides": [HOSPITAL]} if self.joins else {}
            self.airflow.trigger(DAG, self.run, given)
        found = [run for _, run in self.airflow.active_runs(DAG)]
        way = "in Airflow's form" if by_hand else "over REST"
        self.table.check(
            "one-run",
            f"one run is triggered {way}",
            not before and len(found) == 1,
            ", ".join(found),
        )
        self.run = found[0]
        # The form asks for the run and for its DAG to go on in two calls.
        self.table.check("unpaused", "its DAG is paused no more", not remaining(self._paused, 400))

    def _paused(self) -> bool:
        return (self.airflow.dag(DAG) or {}).get("is_paused") is not False

    def restart(self) -> None:
        """Restart either side while the run reads its tables."""
        before = self._joined("hospital-2")
        self.stack.compose("restart", "supernode-hospital-2", deadline=400)
        until("hospital-2 is back", lambda: self._joined("hospital-2") > before, REJOIN_DEADLINE)
        self.table.check("supernode", "a restarted SuperNode joins again", True)
        joined = {name: self._joined(name) for name in self.hospitals}
        self.stack.compose("restart", "superlink", deadline=400)
        for name in self.hospitals:
            until(f"{name} is back", lambda n=name: self._joined(n) > joined[n], REJOIN_DEADLINE)
        self.table.check(
            "superlink",
            "all hospitals join a restarted SuperLink again",
            True,
            ", ".join(self.hospitals),
        )

    def _joined(self, hospital: str) -> int:
        new = hospital == NEW
        log = self.guest.log("supernode") if new else self.stack.log(f"supernode-{hospital}")
        return log.count("has joined")

    def champion(self) -> None:
        """Wait for the run, and check its result."""
        self.trained.look(self.hospitals)

    def figures(self) -> None:
        """Compare the run with the same one by processes."""
        if self.beside is None:
            raise RuntimeError("there is no run to compare with")
        check_same(
            self.table, self.beside.figures(RUN_DEADLINE), self.trained.copy(self.folder / "stack")
        )

    @cached_property
    def trained(self) -> Trained:
        """The run, once it has been triggered."""
        return Trained(self.table, self.stack, self.guest, self.airflow, self._mlflow_url, self.run)

    @property
    def _mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['STACK_MLFLOW_PORT']}"

    @property
    def pages(self) -> Pages:
        """What can be seen in a browser, once it is known who may sign in."""
        options = self.options
        return Pages(
            *(self.table, self.airflow.url, self._mlflow_url, ADMIN, self.password, DAG),
            shots=options.shots,
            must=options.browser,
        )

    def left(self) -> list[str]:
        """Containers, volumes and networks of the stack and of the new hospital's project."""
        return [each for project in (self.guest, self.stack) for each in project.left()]

    def down(self) -> None:
        """Take all down that was started, and check that nothing is left."""
        for project in (self.guest, self.stack):
            attempt(self.table, "down", f"{project.name} is taken down", project.down)
        left = self.left()
        self.table.check("nothing-left", "nothing is left", not left, ", ".join(left))

    def end(self) -> None:
        """End whatever goes on, however far it came; nothing is raised."""
        if self.beside is not None:
            attempt(self.table, "beside", "the run beside it ends", self.beside.end)
        if self.started and not self.options.keep:
            with contextlib.suppress(Exception), self.table.stage("down"):
                self.down()


def _life(container: dict[str, Any]) -> tuple[str, str]:
    return container["Id"], container["State"]["StartedAt"]


def smoke(
    options: argparse.Namespace,
    table: Table,
    wanted: Collection[str] = CHOICE,
    beside: EarlierRun | None = None,
) -> int:
    """Run the stages, and print the table however they end.

    Args:
        options: The command's.
        table: Gets the checks.
        wanted: Which of ``CHOICE``; the others are done always.
        beside: The same run by processes, to compare figures with; None to make it where they are
            wanted.

    Returns:
        The exit code.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        made = Smoke(table, options, Path(folder), wanted)
        made.beside = beside
        stages = {
            "alone": made.alone,
            "images": made.images,
            "up": made.up,
            "sign-in": made.sign_in,
            "isolation": lambda: isolation.look(table, made.stack),
            "join": made.join,
            "trigger": made.trigger,
            "restart": made.restart,
            "run": made.champion,
            "figures": made.figures,
            "pages": lambda: made.pages.look(made.run),
        }
        try:
            for name, stage in stages.items():
                if name in wanted or name not in CHOICE:
                    with table.stage(name):
                        stage()
        except KeyboardInterrupt:
            table.check("interrupted", "it was not interrupted", False)
        except Exception as error:  # noqa: BLE001  (it is in the table already; the end comes next)
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            with undisturbed():
                made.end()
            code = table.end(options.table)
    return code
