"""A federated round against a stock Flower deployment and against one plain PyTorch loop.

All three train the stroke study's model on the same rows of three hospitals, five local epochs a
round, and judge it. A round is measured between the ends of two rounds, so that starting up counts
nowhere; CPU-seconds are those of the whole process tree, of ended processes too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
from deltalake import write_deltalake

from bench.figures import fedrisk, figure
from tasks.federation.deployment.certificates import make_certificates
from tasks.federation.deployment.commands import run_environment
from tasks.federation.deployment.local import free_ports
from tasks.federation.flower.warm_executor import wait_for_port
from tasks.launch.process_tree import ProcessTree, tail
from tasks.model.rows import load_rows
from tasks.model.scaling import Moments, Scaler
from tasks.run.folder import RunFolder
from tasks.run.manifest import Manifest, TableVersion
from tasks.run.plan import Plan, read_plan
from tasks.run.step import Context
from tasks.settings import Settings
from tasks.study import Study, find_study, read_study
from tasks.telemetry.round_event import read_events

SIZES = {"hospital-1": 1700, "hospital-2": 1400, "hospital-3": 2010}
OUR_ROUNDS, STOCK_ROUNDS = 12, 3
DEADLINE = 400.0


def gold_table(study: Study, rows: int, seed: int) -> pa.Table:
    """Rows of the stroke study's form, with a risk that depends on the first feature."""
    draw = np.random.default_rng(seed)
    columns = {}
    for feature in study.features:
        columns[feature.name] = (draw.random(rows) < 0.3).astype(float)
        if feature.kind == "numeric":
            low, high = study.columns[feature.column].range or (0.0, 1.0)
            columns[feature.name] = (low + high) / 2 + (high - low) / 10 * draw.normal(size=rows)
    first = columns[study.features[0].name]
    risk = 1 / (1 + np.exp(3 - 1.5 * (first - first.mean()) / first.std()))
    label = (draw.random(rows) < risk).astype(np.int32)
    part = np.array(["train", "train", "train", "validation", "test"])[np.arange(rows) % 5]
    patients = [f"{seed}-{i:05d}" for i in range(rows)]
    return pa.table({"patient": patients, "part": part.tolist(), "label": label, **columns})


def make_context(home: Path) -> Context:
    """A run of the stroke study whose gold tables are there."""
    file = find_study("stroke", Path("dags/studies").absolute())
    study = read_study(file, [f"federation.rounds={OUR_ROUNDS}"])
    settings, folder = Settings(home=home), RunFolder(home / "runs", "bench")
    plan = Plan(
        run="bench",
        study=study,
        study_file=str(file),
        source=None,
        hospitals=list(SIZES),
        promote=False,
        overrides=[],
        created=datetime.now(UTC).isoformat(),
    )
    folder.path.mkdir(parents=True)
    (folder.path / "plan.json").write_text(json.dumps(plan.model_dump(mode="json")))
    for seed, (name, rows) in enumerate(SIZES.items()):
        uri = settings.table(name, study.name, "gold")
        write_deltalake(uri, gold_table(study, rows, seed))
        parts = {"train": {"rows": rows * 3 // 5}, "validation": {"rows": rows // 5}}
        folder.write(
            Manifest(
                step="features",
                study="stroke",
                run="bench",
                hospital=name,
                tables={"gold": TableVersion(uri=uri, version=0, rows=rows)},
                figures={"parts": parts},
            )
        )
    return Context(plan=read_plan(folder), run=folder, settings=settings, hospital=None)


def cpu_of_tree(root: psutil.Process) -> float:
    """CPU-seconds of a process, its descendants and those of them that have ended."""
    total = 0.0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += sum(process.cpu_times()[:4])
        except psutil.Error:
            continue
    return total


def between_rounds(done: Callable[[], int], root: psutil.Process, last: int) -> tuple[float, float]:
    """Wall and CPU-seconds a round, from the end of round 1 to the end of the last."""
    end = time.monotonic() + DEADLINE
    started: tuple[float, float] | None = None
    while True:
        number = done()
        if number >= 1 and started is None:
            started = time.monotonic(), cpu_of_tree(root)
            first = number
        if number >= last and started is not None:
            wall, cpu = time.monotonic() - started[0], cpu_of_tree(root) - started[1]
            return wall / (last - first), cpu / (last - first)
        if time.monotonic() > end or not root.is_running():
            raise SystemExit(f"round {last} was not reached; {number} are done")
        time.sleep(0.02)


def ours(context: Context) -> tuple[float, float]:
    """The step as it is."""
    process = subprocess.Popen(
        fedrisk("step", "federated", "--study", "stroke", "--run", "bench"),
        env={**os.environ, "FEDRISK_HOME": str(context.settings.home)},
        stdout=subprocess.DEVNULL,
    )
    events = context.run.path / "files" / "federated" / "rounds.jsonl"
    try:
        return between_rounds(
            lambda: len(read_events(events)), psutil.Process(process.pid), OUR_ROUNDS
        )
    finally:
        process.wait(60)


def stock(context: Context, folder: Path) -> tuple[float, float]:
    """Flower's own commands with their defaults, TLS on."""
    folder.mkdir()
    data, inputs = write_arrays(context, folder)
    files, ports = make_certificates(folder / "tls"), free_ports(1 + len(data))
    processes, me = ProcessTree(force=True), psutil.Process()
    marks, app = folder / "marks", folder / "app"
    shutil.copytree(
        Path(__file__).parent / "stock_app", app, ignore=shutil.ignore_patterns("__pycache__")
    )
    variables = run_environment(context.settings, folder / "flower", None)
    (folder / "flower" / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\naddress = "127.0.0.1:{ports[0]}"\n'
        f'root-certificates = "{files.authority}"\n'
    )
    tls = ["--ssl-ca-certfile", str(files.authority), "--ssl-certfile", str(files.certificate)]
    tls += ["--ssl-keyfile", str(files.key), "--disable-runtime-dependency-installation"]
    # The commands stand beside the interpreter, which need not be on this process's own PATH.
    binaries = Path(sys.executable).parent
    try:
        log = folder / "superlink.log"
        superlink = [str(binaries / "flower-superlink"), *tls, "--port", str(ports[0])]
        processes.start("superlink", superlink, variables, log)
        wait_for_port(ports[0])
        for (name, path), port in zip(data.items(), ports[1:], strict=True):
            node = ["--superlink", f"127.0.0.1:{ports[0]}", "--port", str(port)]
            node += ["--root-certificates", str(files.authority)]
            node += ["--node-config", f'data="{path}"']
            command = [str(binaries / "flower-supernode"), *node]
            processes.start(name, command, variables, folder / f"{name}.log")
        subprocess.run(
            [
                *(str(binaries / "flwr"), "run", str(app), "bench", "--run-config"),
                f'marks="{marks}" inputs={inputs} rounds={STOCK_ROUNDS}',
            ],
            env=variables,
            check=True,
            timeout=120,
            stdout=subprocess.DEVNULL,
        )

        def done() -> int:
            # The first line is round 0: the model before training.
            return len(marks.read_text().splitlines()) - 1 if marks.exists() else 0

        try:
            return between_rounds(done, me, STOCK_ROUNDS)
        except SystemExit:
            print(tail(log, 40), file=sys.stderr)
            raise
    finally:
        processes.end()


def write_arrays(context: Context, folder: Path) -> tuple[dict[str, Path], int]:
    """The same rows, scaled, as files that NumPy reads at once; and the number of features."""
    study, found = context.study, {}
    rows = {
        name: load_rows(context.settings.table(name, study.name, "gold"), study) for name in SIZES
    }
    moments = [Moments.of(each.of("train").x) for each in rows.values()]
    scaler = Scaler.of(moments[0] + moments[1] + moments[2], study.features)
    for name, each in rows.items():
        arrays = {}
        for part in ("train", "validation"):
            arrays[f"{part}_x"] = scaler.transform(each.of(part).x)
            arrays[f"{part}_y"] = each.of(part).y
        found[name] = folder / f"{name}.npz"
        np.savez(found[name], **arrays)
    return found, len(study.features)


def plain(context: Context, folder: Path) -> float:
    """Seconds of the same training in one loop of one process."""
    from tasks.federation.server.weighting import weigh
    from tasks.model.metrics import log_loss
    from tasks.model.network import build, flatten, unflatten
    from tasks.model.training import train_epochs

    study, plan = context.study, context.study.federation
    data, inputs = write_arrays(context, folder)
    arrays = {name: dict(np.load(path)) for name, path in data.items()}
    module = build(study.model, inputs, 1)
    flat = flatten(module)
    weights = weigh(plan.weighting, {name: len(a["train_y"]) for name, a in arrays.items()})
    started = 0.0
    for number in range(OUR_ROUNDS):
        if number == 1:
            started = time.monotonic()
        updates = {}
        for name, own in arrays.items():
            unflatten(module, flat)
            log_loss(own["validation_y"], module(_tensor(own["validation_x"])).detach().numpy())
            train_epochs(
                module,
                own["train_x"],
                own["train_y"],
                model=study.model,
                epochs=plan.local_epochs,
                batch_size=plan.batch_size,
                learning_rate=plan.learning_rate,
                seed=number,
            )
            updates[name] = flatten(module)
        flat = sum(weights[name] * each for name, each in updates.items()).astype(np.float32)
    return (time.monotonic() - started) / (OUR_ROUNDS - 1)


def _tensor(x: np.ndarray):  # type: ignore[no-untyped-def,type-arg]
    import torch

    return torch.from_numpy(x)


def main() -> None:
    """Measure all three and print the ratios."""
    with tempfile.TemporaryDirectory(prefix="fedrisk-bench-") as name:
        home = Path(name)
        context = make_context(home / "home")
        wall, cpu = ours(context)
        figure("federated_round_wall", wall, "s")
        figure("federated_round_cpu", cpu, "CPU-s")
        stock_wall, stock_cpu = stock(context, home / "stock")
        figure("stock_flower_round_wall", stock_wall, "s")
        figure("stock_flower_round_cpu", stock_cpu, "CPU-s")
        loop = plain(context, home / "stock")
        figure("plain_loop_round_wall", loop, "s")
        against = "stock Flower 1.41: SuperNodes, FedAvg and isolation by default, TLS on"
        figure("federated_round_wall_ratio", wall / stock_wall, "1", against)
        figure("federated_round_cpu_ratio", cpu / stock_cpu, "1", against)
        figure("federated_round_wall_over_loop", wall / loop, "1", "one plain PyTorch loop")


if __name__ == "__main__":
    main()
