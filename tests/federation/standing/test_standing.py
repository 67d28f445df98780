"""A SuperLink that stands, hospitals that join it, and runs that are handed over to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from small_federation import ROWS, make_context
from tests_processes import processes_of

from smoke.command import ROOT
from tasks.federation.deployment.certificates import make_certificates, make_node_key
from tasks.federation.deployment.local import free_ports
from tasks.federation.flower import control_cli as control
from tasks.launch.environment import settings_environment
from tasks.run.step import Context, run_step
from tasks.settings import Settings

pytestmark = pytest.mark.slow
MINUTES = 400.0
"""Deadline, in seconds, of what is done soon unless the machine does much beside it."""


class Stand:
    """A SuperLink and SuperNodes as processes, each with its own home as on its own machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port, self.gate = free_ports(2)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        files = make_certificates(root / "made")
        self.identity("superlink", {"ca.crt": files.authority, "tls.crt": files.certificate})
        shutil.copy(files.key, root / "identity" / "superlink" / "tls.key")
        (root / "registered").mkdir()
        for name in ("north", "south", "west"):
            own = root / "keys" / name
            own.mkdir(parents=True)
            key, public = make_node_key(own)
            self.identity(name, {"ca.crt": files.authority, "node.key": key})
            if name in ("north", "south"):
                shutil.copy(public, root / "registered" / f"{name}.pub")

    def identity(self, name: str, files: dict[str, Path]) -> None:
        folder = self.root / "identity" / name
        folder.mkdir(parents=True)
        for file, source in files.items():
            shutil.copy(source, folder / file)

    def settings(self, name: str, **more: object) -> Settings:
        return Settings.model_validate(
            {
                "home": self.root / "homes" / name,
                "lake": f"file://{self.root}/lakes/{{hospital}}",
                "store": f"file://{self.root}/store",
                # In the compose stack a hospital reaches the SuperLink through a gate, which
                # accepts a connection before it knows whether the SuperLink will.
                "superlink": f"localhost:{self.gate if name == 'south' else self.port}",
                "federation": "standing",
                "identity": str(self.root / "identity" / name),
                "registered": str(self.root / "registered"),
                **more,
            }
        )

    def open_gate(self) -> None:
        command = [sys.executable, str(ROOT / "compose" / "gate.py")]
        self.processes["gate"] = subprocess.Popen(
            [*command, f"{self.gate}=localhost:{self.port}"], stdout=subprocess.DEVNULL
        )

    def start(self, name: str, approved: str = "") -> None:
        role = [name] if name == "superlink" else ["supernode", "--hospital", name]
        settings = self.settings(name, approved=approved)
        environment = {**os.environ, **settings_environment(settings)}
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "tasks.federation.standing", *role],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def stop(self, name: str) -> None:
        process = self.processes.pop(name)
        process.terminate()
        process.wait(400)

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text()

    def wait_for(self, name: str, words: str, times: int = 1, deadline: float = MINUTES) -> None:
        end = time.monotonic() + deadline
        while self.log(name).count(words) < times:
            assert time.monotonic() < end, f"{name} never said {words!r}:\n{self.log(name)}"
            time.sleep(0.1)

    def context(self, run: str, **federation: object) -> Context:
        """A run whose gold tables are in the hospitals' lakes, and whose manifests in the store."""
        made = make_context(self.root / "homes" / "airflow", run, **federation)
        settings = self.settings("airflow", identity="", registered="")
        for name in ROWS:
            target = self.root / "lakes" / name / "small" / "gold"
            if not target.exists():
                shutil.copytree(made.settings.table(name, "small", "gold"), target)
            manifest = made.run.read("features", name)
            table = manifest.tables["gold"].model_copy(update={"uri": str(target)})
            made.run.write(manifest.model_copy(update={"tables": {"gold": table}}))
            put = self.root / "store" / name / run / "manifests"
            put.mkdir(parents=True, exist_ok=True)
            shutil.copy(made.run.path / "manifests" / f"features.{name}.json", put)
        target = self.root / "store" / "consortium" / run
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(made.run.path / "plan.json", target)
        return Context(made.plan, made.run, settings, None)


def command_of(process: psutil.Process) -> str:
    """Its command line; empty where it has ended and nobody has taken notice yet."""
    try:
        return " ".join(process.cmdline())
    except psutil.ZombieProcess:
        return ""


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    root = tmp_path_factory.mktemp("standing")
    made = Stand(root)
    try:
        made.open_gate()
        for name in ("superlink", "north", "south"):
            made.start(name)
        for name in ("north", "south"):
            made.wait_for(name, "has joined")
        yield made
    finally:
        for name in list(made.processes):
            with contextlib.suppress(subprocess.TimeoutExpired):
                made.stop(name)
    assert processes_of(root) == []


@pytest.fixture(scope="module")
def trained(stand: Stand) -> Context:
    context = stand.context("r1", min_hospitals=2)
    for name in ("north", "south", "west"):
        run_step("join", "r1", context.settings, name)
    run_step("federated", "r1", context.settings)
    return context


def test_a_run_is_handed_over_and_comes_back(stand: Stand, trained: Context) -> None:
    manifest = trained.run.read("federated")
    assert manifest.figures["rounds"] == 3
    assert manifest.figures["participation"] == {"north": 3, "south": 3, "west": 0}
    assert (trained.run.path / manifest.files["model"]).is_file()
    stored = stand.root / "store" / "consortium" / "r1"
    assert (stored / "manifests" / "federated.json").is_file()
    assert (stored / manifest.files["model"]).is_file()
    assert not list((stand.root / "store" / "consortium" / "requests").glob("*"))


LEFT = {"plan.json", "manifests/federated.json"} | {
    f"files/federated/{name}"
    for name in ("checkpoint.npz", "model.safetensors", "outcome.json", "rounds.jsonl", "taken")
}
"""What a run leaves in the store for the consortium."""


def test_no_row_and_no_table_of_a_hospital_is_in_the_store(stand: Stand, trained: Context) -> None:
    store = stand.root / "store"
    found = {path.relative_to(store) for path in store.rglob("*") if path.is_file()}
    # All that there is: a row could have any name.
    expected = {f"consortium/r1/{name}" for name in LEFT}
    expected |= {
        f"{name}/r1/manifests/{step}.{name}.json" for name in ROWS for step in ("features", "join")
    }
    assert {str(path) for path in found if path.parts[1] == "r1"} == expected
    # Of runs that other tests have made.
    others = {path for path in found if path.parts[1] != "r1"}
    allowed = {name.replace("/r1/", "/{run}/") for name in expected}
    assert {str(Path(p.parts[0], "{run}", *p.parts[2:])) for p in others} <= allowed
    patients = [f"{name}-0000".encode() for name in ROWS]
    assert not [p for p in found if any(each in (store / p).read_bytes() for each in patients)]
    own = stand.root / "lakes" / "north" / "runs" / "r1" / "files" / "join.north" / "hospital.json"
    assert own.is_file()


def test_a_hospital_joins_without_a_restart_and_takes_part(stand: Stand, trained: Context) -> None:
    before = stand.processes["superlink"].pid
    public = stand.root / "keys" / "west" / "node.pub"
    shutil.copy(public, stand.root / "registered" / "west.pub")
    stand.start("west")
    stand.wait_for("west", "has joined")
    context = stand.context("r2")
    for name in ("north", "south"):
        run_step("join", "r2", context.settings, name)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_step, "federated", "r2", context.settings)
        # As Airflow has it: nothing says that all steps ``join`` end before this one begins.
        log = stand.root / "homes" / "superlink" / "federation" / "superlink" / "superlink.log"
        end = time.monotonic() + MINUTES
        while "waiting for west to join the run" not in log.read_text():
            assert time.monotonic() < end, log.read_text()[-2000:]
            assert not running.done()
            time.sleep(0.1)
        run_step("join", "r2", context.settings, "west")
        figures = running.result(timeout=400).figures
    assert figures["participation"] == dict.fromkeys(ROWS, 3)
    assert stand.processes["superlink"].pid == before


def test_a_hospital_that_is_removed_is_shut_out_and_comes_back_with_the_same_key(
    stand: Stand, trained: Context
) -> None:
    registered = stand.root / "registered" / "west.pub"
    if not registered.exists():
        shutil.copy(stand.root / "keys" / "west" / "node.pub", registered)
        stand.start("west")
    before = stand.processes["superlink"].pid
    joined = stand.log("west").count("has joined") or 1
    stand.wait_for("west", "has joined", times=joined)
    again = stand.log("west").count("it is started again")
    registered.unlink()
    stand.wait_for("superlink", "unregistered west")
    stand.wait_for("west", "it is started again", times=again + 2)
    assert stand.log("west").count("has joined") == joined
    shutil.copy(stand.root / "keys" / "west" / "node.pub", registered)
    stand.wait_for("west", "has joined", times=joined + 1)
    assert stand.processes["superlink"].pid == before


def test_a_key_whose_registration_was_not_answered_is_registered(
    stand: Stand, trained: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a hospital stay half removed whose removal was not answered."""
    authority = stand.root / "identity" / "superlink" / "ca.crt"
    control.connect(tmp_path / "flower", f"127.0.0.1:{stand.port}", authority)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    _, key = make_node_key(tmp_path)
    # The second calls are those of one that did not get the first ones' answers.
    node, again = control.register("east", key), control.register("east", key)
    assert node == again
    with pytest.raises(RuntimeError, match="in use"):
        control.register("another", key)
    for _ in range(2):
        control.unregister(node)
    assert control.register("east", key) != node


def test_the_control_api_is_closed_to_other_machines(stand: Stand, trained: Context) -> None:
    authority = ssl.create_default_context(
        cafile=str(stand.root / "identity" / "superlink" / "ca.crt")
    )
    authority.check_hostname = False
    address = _other_address()
    asked = {}
    for path in ("/v1/control/list-nodes", "/v1/runtime/x", "/v1/fleet/x"):
        request = urllib.request.Request(f"https://{address}:{stand.port}{path}", b"")
        try:
            urllib.request.urlopen(request, timeout=400, context=authority)
        except urllib.error.HTTPError as error:
            asked[path] = error.code
    assert asked["/v1/control/list-nodes"] == asked["/v1/runtime/x"] == 403
    assert asked["/v1/fleet/x"] != 403


def _other_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        # Nothing is sent: the kernel only says which address of this machine would be used.
        found.connect(("192.0.2.1", 9))
        address = str(found.getsockname()[0])
    if address.startswith("127."):
        pytest.skip("this machine has no address beside the loopback")
    return address


def test_after_a_restart_hospitals_come_back_and_the_run_goes_on(
    stand: Stand, trained: Context
) -> None:
    context = stand.context("r3", min_hospitals=2, rounds=40, deadlines={"run": 400})
    for name in ROWS:
        run_step("join", "r3", context.settings, name)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_step, "federated", "r3", context.settings)
        checkpoint = stand.root / "store" / "consortium" / "r3" / "files" / "federated"
        end = time.monotonic() + MINUTES
        while not (checkpoint / "checkpoint.npz").exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        joined = {name: stand.log(name).count("has joined") for name in ("north", "south")}
        stand.stop("superlink")
        stand.start("superlink")
        stand.wait_for("superlink", "listens on port", times=2)
        for name, count in joined.items():
            stand.wait_for(name, "has joined", times=count + 1)
        manifest = running.result(timeout=400)
    assert manifest.figures["rounds"] == 40
    assert any("resumed after round" in note for note in manifest.notes)


def test_rows_are_each_supernodes_own_and_end_with_it(stand: Stand, trained: Context) -> None:
    def rows(name: str) -> Path:
        return stand.root / "homes" / name / "federation" / name / "rows"

    for name in ("north", "south"):
        kept = list(rows(name).rglob("rows.npz"))
        assert kept
        assert {path.stat().st_mode & 0o777 for path in (rows(name), kept[0].parent)} == {0o700}
        assert (rows(name).parent / "ready").exists()
    stand.stop("north")
    assert not rows("north").exists()
    assert not (rows("north").parent / "ready").exists()
    assert rows("south").exists()


def test_a_supernode_that_has_lost_its_superexec_is_started_anew(
    stand: Stand, trained: Context
) -> None:
    again = stand.log("south").count("it is started again")
    keeper = psutil.Process(stand.processes["south"].pid)
    [supernode] = [each for each in keeper.children() if "executor" in command_of(each)]
    [superexec] = supernode.children()
    superexec.kill()
    # It joins after a minute, for which Flower takes the killed one for alive.
    stand.wait_for("south", "it is started again", times=again + 1)
    log = stand.root / "homes" / "south" / "federation" / "south" / "supernode.log"
    assert "the SuperExec ended with wait status 9" in log.read_text()


def test_a_renewed_certificate_ends_the_superlink_so_that_its_keeper_starts_it_anew(
    stand: Stand, trained: Context
) -> None:
    from tasks.federation.deployment.certificates import make_certificates

    listened = stand.log("superlink").count("listens on port")
    files = make_certificates(stand.root / "renewed")
    for name, source in (("tls.crt", files.certificate), ("tls.key", files.key)):
        shutil.copy(source, stand.root / "identity" / "superlink" / name)
    shutil.copy(files.authority, stand.root / "identity" / "superlink" / "ca.crt")
    process = stand.processes.pop("superlink")
    assert process.wait(400) == 4
    assert "the SuperLink's certificate was renewed" in stand.log("superlink")
    assert processes_of(stand.root / "homes" / "superlink") == []
    stand.start("superlink")
    stand.wait_for("superlink", "listens on port", times=listened + 1)
    served = ssl.get_server_certificate(("127.0.0.1", stand.port), timeout=400)
    assert served.split() == files.certificate.read_text().split()
