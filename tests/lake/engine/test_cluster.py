"""The data steps on a standalone Spark cluster leave what they leave on one machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyspark
import pytest

from tasks.lake.jvm.find_java import find_java
from tasks.lake.jvm.jars import ensure_jars
from tasks.lake.jvm.options import java_environment
from tasks.launch.process_tree import ProcessTree
from tasks.local_airflow.home import free_port
from tasks.run.plan import Request, make_plan
from tasks.run.stored_run import open_run
from tasks.settings import Settings
from tests.lake.engine.test_engines import STEPS, STUDY, odd_table, rows_of, steps

PROGRAMS = Path(pyspark.__file__).parent / "bin"
CHECKOUT = Path(__file__).parents[3]
WAIT = 1500.0
"""Seconds; CI runs this at the lowest weight, where a fifth of an hour may pass without a turn."""


@dataclass(frozen=True)
class Cluster:
    """A master and two workers."""

    url: str
    environment: Mapping[str, str]
    workers: tuple[Path, ...]

    def busy(self) -> list[int]:
        """How many executors each worker has started so far."""
        return [len(list(folder.glob("app-*/*"))) for folder in self.workers]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A standalone cluster of two workers on this machine."""
    folder = tmp_path_factory.mktemp("cluster")
    java = java_environment(find_java(Settings.from_environment()), folder)
    # Small tables: the quick compiler does, and one collector.
    quick = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    (folder / "spark-defaults.conf").write_text(
        f"spark.executor.extraJavaOptions {quick}\nspark.driver.extraJavaOptions {quick}\n"
    )
    environment = {
        **java,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_CONF_DIR": str(folder),
        "SPARK_DAEMON_JAVA_OPTS": quick,
    }
    port, page = free_port(0), free_port(0)
    url = f"spark://127.0.0.1:{port}"
    tree = ProcessTree(force=True)

    def start(name: str, kind: str, *arguments: str) -> None:
        command = [str(PROGRAMS / "spark-class"), f"org.apache.spark.deploy.{kind}", *arguments]
        tree.start(name, command, environment, folder / f"{name}.log")

    try:
        start("master", "master.Master", "--host", "127.0.0.1", "--port", str(port),
              "--webui-port", str(page))  # fmt: skip
        workers = (folder / "worker-1", folder / "worker-2")
        for worker in workers:
            worker.mkdir()
            start(worker.name, "worker.Worker", "--cores", "1", "--memory", "700m", "--work-dir",
                  str(worker), "--webui-port", "0", url)  # fmt: skip
        deadline = time.monotonic() + WAIT
        while _workers(page) < len(workers):
            assert not tree.ended(), [log.read_text()[-2000:] for log in folder.glob("*.log")]
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield Cluster(url, environment, workers)
    finally:
        tree.end()


def _workers(page: int) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{page}/json/", timeout=10) as answer:
            return int(json.load(answer)["aliveworkers"])
    except OSError:
        return 0


@pytest.mark.slow
def test_the_data_steps_on_two_workers_leave_the_tables_of_one_machine(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "odd.yaml").write_text(STUDY.format(id="id: Patient ID\n"))
    (tmp_path / "north.csv").write_text(odd_table(2_000, 7))
    expected = steps(tmp_path, str(tmp_path / "one" / "{hospital}"), "r", "local")
    environment = {
        **cluster.environment,
        "PYTHONPATH": str(CHECKOUT),
        "PYSPARK_PYTHON": sys.executable,
        "FEDRISK_HOME": str(tmp_path / "cluster"),
        "FEDRISK_STUDIES": str(tmp_path),
        "FEDRISK_ENGINE": "spark",
        "FEDRISK_ENGINE_MEMORY": "512m",
    }
    settings = Settings.from_environment(environment)
    make_plan(Request(study="odd"), "r", settings)
    run = open_run(settings, "r")

    def step(name: str, program: list[str], **more: str) -> None:
        before = cluster.busy()
        done = subprocess.run(
            [*program, "step", name, "--study", "odd", "--run", "r", "--hospital", "north"],
            env={**environment, **more},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=3 * WAIT,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        # Nothing of ``collect`` needs Spark.
        on_both = all(now > then for now, then in zip(cluster.busy(), before, strict=True))
        assert on_both == (name != "collect")
        found = run.read(name, "north")
        assert found.figures == expected[name].figures
        for layer, table in found.tables.items():
            assert rows_of(table) == rows_of(expected[name].tables[layer]), layer

    jars = ensure_jars(Settings.from_environment().home, find_java(settings))
    submit = [
        str(PROGRAMS / "spark-submit"), "--master", cluster.url, "--executor-memory", "512m",
        "--jars", ",".join(map(str, sorted(jars.glob("*.jar")))),
        str(CHECKOUT / "tasks" / "cli" / "__main__.py"),
    ]  # fmt: skip
    for name in STEPS[:2]:
        step(name, submit)
    step(STEPS[2], [sys.executable, "-m", "tasks.cli"], FEDRISK_SPARK_MASTER=cluster.url)
