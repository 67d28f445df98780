"""``python -m smoke.compose``: the compose stack from nothing to a champion and back to nothing.

Everything that it starts has the project's name ``fedrisk-smoke`` and ports of its own, so a stack
that is in use is left alone. It is taken down at the end, on failure and on Ctrl-C too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path
from typing import Any

from smoke.command import ROOT, StackError
from smoke.compare import EarlierRun, ProcessRun
from smoke.compose import isolation
from smoke.compose.airflow_pages import open_form, press_trigger, sign_in, unpauses
from smoke.compose.browser import Page, browser_page, find_browser
from smoke.compose.run import Trained, over_rest
from smoke.compose.stack import Project, page_of
from smoke.ending import attempt, undisturbed
from smoke.images import ready_images, revision
from smoke.table import Table
from smoke.waits import remaining, until
from tasks.local_airflow.api_client import Airflow, AirflowError
from tasks.local_airflow.home import free_port

DAG, ADMIN, NEW = "retrain_stroke", "admin", "hospital-4"
IMAGES = ("airflow", "federation", "mlflow", "worker")
ROUNDS = 3
HOSPITAL = f"hospitals.{NEW}={{title: New, share: {{rows: 900, positive_rate: 0.06}}}}"
OVERRIDES = [f"federation.rounds={ROUNDS}", HOSPITAL]
"""What the same run has to be told elsewhere."""
ANYBODY = "2468:2468"
"""Whom root gives the kit to: a user that is not the images', as most who unpack a kit are."""
RUN_DEADLINE = 1500.0
REJOIN_DEADLINE = 240.0
APPROVED = "studies:\n  - name: stroke\n"


class Smoke:
    """One stack, and what is looked at on the way."""

    def __init__(self, table: Table, options: argparse.Namespace, folder: Path) -> None:
        """Prepare; nothing is started.

        Args:
            table: Gets the checks.
            options: The command's.
            folder: For the new hospital's kit.
        """
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
        self.by_process: dict[str, Any] = {}

    def variables(self) -> dict[str, str]:
        """What the compose files are told."""
        kit = {
            "FEDRISK_USER": self.owner,
            "STACK_FOLDER": str(ROOT),
            "STACK": self.options.project,
        }
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
        """See that nothing is there that would be taken for this stack's, or taken down with it.

        Raises:
            StackError: There is something of an earlier one.
        """
        left = self.left()
        names = f"{self.stack.name} {self.guest.name}"
        if not self.table.check("nothing is left of an earlier stack", not left, ", ".join(left)):
            raise StackError(f"remove it first: {sys.executable} compose/down.py {names}")

    def images(self) -> None:
        """Build the images of this checkout, or use those of a tag."""
        self.tag = ready_images(IMAGES, self.options.tag)
        found = {revision(name, self.tag) for name in IMAGES}
        self.table.check("the images are of one revision", len(found) == 1, ", ".join(found))

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
        self.table.check("all services are healthy or have done their work", not bad, bad or took)

    def sign_in(self) -> None:
        """Sign in with the generated password, and not with another."""
        told = self.stack.inside("api-server", "cat", "/run/sign-in/password.json").stdout
        self.password = json.loads(told)[ADMIN]
        url = f"http://127.0.0.1:{self.ports['STACK_AIRFLOW_PORT']}"
        self.airflow = Airflow(url, ADMIN, self.password)
        try:
            Airflow(url, ADMIN, "wrong").active_runs(DAG)
            refused = "let in"
        except AirflowError as error:
            refused = str(error)
        self.table.check("a wrong password is refused", "401" in refused, refused)
        until("the DAG is there", lambda: self.airflow.dag(DAG), 120)
        errors = self.airflow.import_errors()
        if self.beside is None:
            self.beside = ProcessRun(self.folder / "process", self.run, OVERRIDES)
        self.table.check(
            "the generated password lets in, and all DAGs are read", not errors, errors
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
        until("it is registered", lambda: f"registered {NEW}" in self.stack.log("superlink"), 60)
        self.guest.compose(
            "up", "--detach", "--wait", "--wait-timeout", "180", "gate", deadline=240
        )
        checked = self.guest.compose(
            *("run", "--rm", "--no-deps", "--no-TTY", "--volume", f"{self.folder / NEW}:/kit:ro"),
            *("supernode", "fedrisk", "hospital", "check", "--kit", "/kit"),
            deadline=300,
            check=False,
        )
        self.table.check(
            "its kit's own check, before it starts, finds nothing missing",
            checked.returncode == 0,
            checked.stdout or checked.stderr[-500:],
        )
        self.guest.up(deadline=300)
        self.table.check("a new hospital joins with its kit", True, NEW)
        now = {name: _life(each) for name, each in self.stack.containers().items()}
        changed = [name for name, life in before.items() if now.get(name) != life]
        self.table.check("nothing was restarted for it", not changed, ", ".join(changed))

    def trigger(self) -> None:
        """Start a run of four hospitals, one of them new: by hand where there is a browser."""
        if self.beside is not None:
            # Side by side on few cores each would take longer than both in turn.
            self.by_process = self.beside.figures(RUN_DEADLINE)
        over_rest(self.table, self.airflow, f"{self.run}-rest", {"overrides": [HOSPITAL]})
        before = self.airflow.active_runs(DAG)
        by_hand = find_browser() is not None
        if by_hand:
            self._press()
            until("the form's run is there", lambda: self.airflow.active_runs(DAG), 60)
        else:
            self.airflow.set_paused(DAG, False)
            self.airflow.trigger(DAG, self.run, {"rounds": ROUNDS, "overrides": [HOSPITAL]})
        found = [run for _, run in self.airflow.active_runs(DAG)]
        way = "in Airflow's form" if by_hand else "over REST"
        self.table.check(
            f"one run is triggered {way}", not before and len(found) == 1, ", ".join(found)
        )
        self.run = found[0]
        # The form asks for the run and for its DAG to go on in two calls.
        self.table.check("its DAG is paused no more", not remaining(self._paused, 30))
        if not by_hand:
            self._browser_missing("a run is triggered in Airflow's form")

    def _paused(self) -> bool:
        return (self.airflow.dag(DAG) or {}).get("is_paused") is not False

    def _press(self) -> None:
        with browser_page() as page:
            sign_in(page, self.airflow.url, ADMIN, self.password)
            open_form(page, self.airflow.url, DAG, "Stroke risk")
            page.wait_for("Elderly urban")
            self._shot(page, "trigger-form")
            self.table.check(
                "the form will let a paused DAG run unless it is told not to", unpauses(page)
            )
            press_trigger(page, {"rounds": str(ROUNDS), "overrides": HOSPITAL})

    def _browser_missing(self, what: str) -> None:
        if self.options.browser:
            self.table.check(what, False, "there is no browser (chromium)")
        else:
            self.table.leave(what, "there is no browser (chromium)")

    def restart(self) -> None:
        """Restart either side while the run reads its tables."""
        hospitals = ["hospital-1", "hospital-2", "hospital-3", NEW]
        before = self._joined("hospital-2")
        self.stack.compose("restart", "supernode-hospital-2", deadline=120)
        until("hospital-2 is back", lambda: self._joined("hospital-2") > before, REJOIN_DEADLINE)
        self.table.check("a restarted SuperNode joins again", True)
        joined = {name: self._joined(name) for name in hospitals}
        self.stack.compose("restart", "superlink", deadline=120)
        for name in hospitals:
            until(f"{name} is back", lambda n=name: self._joined(n) > joined[n], REJOIN_DEADLINE)
        self.table.check(
            "all hospitals join a restarted SuperLink again", True, ", ".join(hospitals)
        )

    def _joined(self, hospital: str) -> int:
        new = hospital == NEW
        log = self.guest.log("supernode") if new else self.stack.log(f"supernode-{hospital}")
        return log.count("has joined")

    def champion(self) -> None:
        """Wait for the run, and look at what came of it."""
        Trained(self.table, self.stack, self.guest, self.airflow, self._mlflow_url, self.run).look(
            self.folder / "stack", self.by_process
        )

    @property
    def _mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['STACK_MLFLOW_PORT']}"

    def pages(self) -> None:
        """Every page answers; in a real browser where there is one."""
        for name, url in (("Airflow", self.airflow.url), ("MLflow", self._mlflow_url)):
            said = page_of(url + "/")
            self.table.check(
                f"{name}'s page answers", b"<html" in said.lower(), f"{len(said)} bytes"
            )
        if find_browser() is None:
            self._browser_missing("the pages in a browser")
            return
        run = f"{self.airflow.url}/dags/{DAG}/runs/{urllib.parse.quote(self.run, safe='')}"
        with browser_page() as page:
            sign_in(page, self.airflow.url, ADMIN, self.password)
            page.open(run, "collect", "promote", "success")
            self._shot(page, "run")
            page.open(f"{self._mlflow_url}/#/models/fedrisk-stroke", "champion")
            self._shot(page, "champion")

    def _shot(self, page: Page, name: str) -> None:
        if self.options.shots is not None:
            page.picture(self.options.shots / f"{name}.png")
        self.table.check(f"the page in a browser: {name}", True)

    def left(self) -> list[str]:
        """Containers, volumes and networks of the stack and of the new hospital's project."""
        return [each for project in (self.guest, self.stack) for each in project.left()]

    def down(self) -> None:
        """Take all down that was started, and see that nothing is left."""
        for project in (self.guest, self.stack):
            attempt(self.table, f"{project.name} is taken down", project.down)
        left = self.left()
        self.table.check("nothing is left", not left, ", ".join(left))

    def end(self) -> None:
        """End whatever goes on, however far it came; nothing is raised."""
        if self.beside is not None:
            attempt(self.table, "the run beside it ends", self.beside.end)
        if self.started and not self.options.keep:
            with contextlib.suppress(Exception), self.table.stage("down"):
                self.down()


def _life(container: dict[str, Any]) -> tuple[str, str]:
    return container["Id"], container["State"]["StartedAt"]


def smoke(options: argparse.Namespace, table: Table, beside: EarlierRun | None = None) -> int:
    """Run all stages.

    Args:
        options: The command's.
        table: Gets the checks.
        beside: The same run (``OVERRIDES``) by processes; None to make it beside the stack.

    Returns:
        The exit code.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        made = Smoke(table, options, Path(folder))
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
            "pages": made.pages,
        }
        try:
            for name, stage in stages.items():
                with table.stage(name):
                    stage()
        except KeyboardInterrupt:
            table.check("it was not interrupted", False)
        except Exception as error:  # noqa: BLE001  (the stage has told it; the end comes next)
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            with undisturbed():
                made.end()
    return table.end(options.table)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m smoke.compose", description=__doc__)
    parser.add_argument("--project", default="fedrisk-smoke", help="the stack's project name")
    parser.add_argument(
        "--tag", default="", help="use these images; default: build this checkout's"
    )
    parser.add_argument("--table", type=Path, help="write the table as JSON too")
    parser.add_argument("--shots", type=Path, help="folder for pictures of the pages")
    parser.add_argument("--browser", action="store_true", help="fail where there is no browser")
    parser.add_argument("--keep", action="store_true", help="leave the stack up")
    signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    return smoke(parser.parse_args(), Table())


if __name__ == "__main__":
    sys.exit(main())
