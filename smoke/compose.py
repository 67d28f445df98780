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
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smoke import isolation
from smoke.browser import browser_page, find_browser
from smoke.compare import ProcessRun, check_same
from smoke.images import ready_images, revision
from smoke.stack import ROOT, Project, StackError
from smoke.table import Table
from smoke.waits import NotReached, until
from tasks.embedded.home import free_port
from tasks.embedded.rest import Airflow, AirflowError
from tasks.manifest import RunFolder

DAG, ADMIN, NEW = "retrain_stroke", "admin", "hospital-4"
IMAGES = ("airflow", "federation", "mlflow", "worker")
ROUNDS = 3
HOSPITAL = f"hospitals.{NEW}={{title: New, share: {{rows: 900, positive_rate: 0.06}}}}"
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
        self.password, self.peak = "", dict[str, int]()
        self.run = f"smoke-{int(time.time())}"
        self.beside: ProcessRun | None = None
        self.by_process: dict[str, Any] = {}

    def variables(self) -> dict[str, str]:
        """What the compose files are told."""
        kit = {
            "FEDRISK_IMAGE": f"fedrisk-federation:{self.tag}",
            "STACK_FOLDER": str(ROOT),
            "STACK": self.options.project,
        }
        return {**self.ports, "STACK_TAG": self.tag, "STACK_ADMIN": ADMIN, **kit}

    @property
    def stack(self) -> Project:
        """The stack."""
        return Project(self.options.project, ["docker-compose.yaml"], self.variables())

    @property
    def guest(self) -> Project:
        """The project of the new hospital's kit."""
        files = [str(self.folder / NEW / "compose.yaml"), str(ROOT / "compose" / "kit.yaml")]
        return Project(f"{self.options.project}-{NEW}", files, self.variables())

    def images(self) -> None:
        """Build the images of this checkout, or use those of a tag."""
        self.tag = ready_images(IMAGES, self.options.tag)
        found = {revision(name, self.tag) for name in IMAGES}
        self.table.check("the images are of one revision", len(found) == 1, ", ".join(found))

    def up(self) -> None:
        """Start the stack."""
        began = time.monotonic()
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
        overrides = [f"federation.rounds={ROUNDS}", HOSPITAL]
        self.beside = ProcessRun(self.folder / "process", self.run, overrides)
        self.table.check(
            "the generated password lets in, and all DAGs are read", not errors, errors
        )

    def join(self) -> None:
        """Bring in a hospital with its kit, without a restart of anything."""
        before = {name: _life(each) for name, each in self.stack.containers().items()}
        kits = f"{self.folder}:/kits"
        self.stack.compose(
            *("run", "--rm", "--no-TTY", "--no-deps", "--volume", kits, "keys"),
            *("python", "/opt/stack/keys.py", NEW),
        )
        (self.folder / NEW / "approved.yaml").write_text(APPROVED, encoding="utf-8")
        until("it is registered", lambda: f"registered {NEW}" in self.stack.log("superlink"), 60)
        self.guest.compose("up", "--detach", "--wait", "--wait-timeout", "90", "gate")
        checked = self.guest.compose(
            *("run", "--rm", "--no-deps", "--no-TTY", "--volume", f"{self.folder / NEW}:/kit:ro"),
            *("supernode", "fedrisk", "hospital", "check", "--kit", "/kit"),
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
        """Start a run of four hospitals, one of them new."""
        if self.beside is not None:
            # Side by side on few cores each would take longer than both in turn.
            self.by_process = self.beside.figures(RUN_DEADLINE)
        self.airflow.set_paused(DAG, False)
        self.airflow.trigger(DAG, self.run, {"rounds": ROUNDS, "overrides": [HOSPITAL]})
        self.table.check("a run is triggered over REST", True, self.run)

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
        began, state = time.monotonic(), "queued"
        while state not in ("success", "failed") and time.monotonic() - began < RUN_DEADLINE:
            for name, size in self.stack.memory().items():
                self.peak[name] = max(size, self.peak.get(name, 0))
            time.sleep(3)
            state = self.airflow.state(DAG, self.run)
        tasks = {
            f"{t['task_id']}[{t['map_index']}]": t["state"]
            for t in self.airflow.tasks(DAG, self.run)
        }
        bad = {name: found for name, found in tasks.items() if found != "success"}
        if not self.table.check(
            "the run ends well, every task of it",
            state == "success" and not bad,
            bad or f"{len(tasks)} tasks",
        ):
            raise StackError(f"the run is {state}: {bad}; {self._endings()}")
        path = f"/var/lib/fedrisk/runs/{self.run}/manifests/federated.json"
        figures = json.loads(self.stack.inside("scheduler", "cat", path).stdout)["figures"]
        expected = {f"hospital-{number}": figures["rounds"] for number in (1, 2, 3, 4)}
        self.table.check(
            "all four hospitals took part in all rounds, on the standing federation",
            figures["participation"] == expected and not figures["lost"],
            {"rounds": figures["participation"], "lost": self._lost()},
        )
        found = self._mlflow("registered-models/alias?name=fedrisk-stroke&alias=champion")[
            "model_version"
        ]
        self.table.check(
            "MLflow has the champion", bool(found["version"]), f"version {found['version']}"
        )
        self.table.check(
            "each service stays within its memory",
            bool(self.peak),
            ", ".join(f"{name} {size} MB" for name, size in sorted(self.peak.items())),
        )
        self._compare()

    def _compare(self) -> None:
        runs = self.folder / "stack"
        runs.mkdir()
        self.stack.compose("cp", f"scheduler:/var/lib/fedrisk/runs/{self.run}", str(runs))
        check_same(self.table, self.by_process, RunFolder(runs, self.run))

    def _lost(self) -> list[str]:
        """What the rounds' events say of hospitals that did not answer."""
        path = f"/var/lib/fedrisk/runs/{self.run}/files/federated/rounds.jsonl"
        events = self.stack.inside("scheduler", "cat", path).stdout.splitlines()
        return [event["note"] for event in map(json.loads, events) if event["lost"]]

    def _endings(self) -> str:
        script = f"cat /var/lib/fedrisk/runs/{self.run}/ends/*.json"
        return self.stack.inside("scheduler", "sh", "-c", script).stdout[-1500:]

    def _mlflow(self, path: str) -> Any:
        return json.loads(_get(f"{self._mlflow_url}/api/2.0/mlflow/{path}"))

    @property
    def _mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self.ports['STACK_MLFLOW_PORT']}"

    def pages(self) -> None:
        """Every page answers; in a real browser where there is one."""
        for name, url in (("Airflow", self.airflow.url), ("MLflow", self._mlflow_url)):
            said = _get(url + "/")
            self.table.check(
                f"{name}'s page answers", b"<html" in said.lower(), f"{len(said)} bytes"
            )
        if find_browser() is None:
            self.table.check("a browser is there (chromium)", not self.options.browser, "none")
            return
        shots, dag = self.options.shots, f"{self.airflow.url}/dags/{DAG}"
        with browser_page() as page:
            page.open(f"{self.airflow.url}/", "sign in")
            page.fill("input[name=username]", ADMIN)
            page.fill("input[name=password]", self.password)
            page.run("document.querySelector('button[type=submit]').click()")
            until("it is signed in", lambda: "/auth" not in str(page.run("location.pathname")), 60)
            page.open(dag, "Stroke risk", "Trigger")
            page.run(
                "[...document.querySelectorAll('button')].find(e => e.innerText.trim() ==="
                " 'Trigger' || e.getAttribute('aria-label') === 'Trigger Dag').click()"
            )
            page.wait_for("Hospitals", "Strategy", "Rounds", "Elderly urban")
            self._shot(page, shots, "trigger-form")
            page.open(f"{dag}/runs/{self.run}", "collect", "promote", "success")
            self._shot(page, shots, "run")
            page.open(f"{self._mlflow_url}/#/models/fedrisk-stroke", "champion")
            self._shot(page, shots, "champion")

    def _shot(self, page: Any, shots: Path | None, name: str) -> None:
        if shots is not None:
            page.picture(shots / f"{name}.png")
        self.table.check(f"the page in a browser: {name}", True)

    def down(self) -> None:
        """Take all down, and see that nothing is left."""
        projects = [self.stack]
        if (self.folder / NEW / "compose.yaml").exists():
            projects.insert(0, self.guest)
        for project in projects:
            project.down()
        left = [each for project in (self.guest, self.stack) for each in project.left()]
        self.table.check("nothing is left", not left, ", ".join(left))


def _get(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=30) as answer:
            return bytes(answer.read())
    except urllib.error.URLError as error:
        raise StackError(f"{url}: {error}") from None


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not leave half of what is taken down."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _life(container: dict[str, Any]) -> tuple[str, str]:
    return container["Id"], container["State"]["StartedAt"]


def smoke(options: argparse.Namespace, table: Table) -> int:
    """Run all stages.

    Args:
        options: The command's.
        table: Gets the checks.

    Returns:
        The exit code.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        made = Smoke(table, options, Path(folder))
        stages = {
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
            with _undisturbed():
                if made.beside is not None:
                    made.beside.end()
                if not options.keep:
                    with contextlib.suppress(StackError, NotReached), table.stage("down"):
                        made.down()
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
