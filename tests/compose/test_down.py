"""`make compose-down` leaves nothing of the project, whichever files it was started with."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from smoke.command import ROOT

DOCKER = """\
#!{python}
# A Docker with one file a thing: KIND/PROJECT/NAME; a network's file names who is in it.
import json, pathlib, sys
root = pathlib.Path({root!r})
words = sys.argv[1:]
with (root / "asked").open("a") as log:
    log.write(" ".join(words) + "\\n")
def project():
    return words[words.index("--filter") + 1].rpartition("=")[2]
def remove(kind, names):
    for name in names:
        (path,) = (root / kind).glob("*/" + name)
        if path.read_text().split():
            sys.exit(f"{{name}} is in use")
        path.unlink()
if words[:2] == ["compose", "config"]:
    print(json.dumps({{"name": "mine"}}))
elif words[0] == "ps" or words[1] == "ls":
    kind = {{"ps": "container"}}.get(words[0], words[0])
    print("\\n".join(path.name for path in (root / kind).glob(project() + "/*")))
elif words[0] == "rm":
    for network in (root / "network").glob("*/*"):
        network.write_text(" ".join(set(network.read_text().split()) - set(words)))
    remove("container", [word for word in words[1:] if word[0] != "-"])
elif words[1] == "rm":
    remove(words[0], [word for word in words[2:] if word[0] != "-"])
elif words[:2] == ["network", "inspect"]:
    (path,) = (root / "network").glob("*/" + words[2])
    inside = {{name: {{"Name": name}} for name in path.read_text().split()}}
    print(json.dumps([{{"Containers": inside}}]))
elif words[:2] == ["network", "disconnect"]:
    (path,) = (root / "network").glob("*/" + words[-2])
    path.write_text(path.read_text().replace(words[-1], ""))
elif words[0] == "inspect":
    (path,) = (root / "container").glob("*/" + words[-1])
    print(path.parent.name)
else:
    sys.exit("what?")
"""


class Engine:
    """A stand-in for Docker that knows containers, volumes and networks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        program = root / "bin" / "docker"
        program.parent.mkdir()
        program.write_text(DOCKER.format(python=sys.executable, root=str(root)))
        program.chmod(0o755)

    def make(self, kind: str, project: str, name: str, inside: str = "") -> None:
        path = self.root / kind / project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(inside)

    def left(self) -> list[str]:
        kinds = ("container", "volume", "network")
        return sorted(p.name for kind in kinds for p in self.root.glob(f"{kind}/*/*"))

    def down(self, *projects: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "compose" / "down.py"), *projects],
            env={"PATH": str(self.root / "bin")},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """A stack with a hospital of an override, a kit that is plugged into it, and another stack."""
    made = Engine(tmp_path)
    for name in ("mine-postgres-1", "mine-supernode-cleveland-1"):
        made.make("container", "mine", name)
    made.make("container", "kit", "kit-gate-1")
    for name in ("mine_postgres", "mine_cleveland", "mine_cleveland-identity"):
        made.make("volume", "mine", name)
    made.make("network", "mine", "mine_cleveland", "mine-supernode-cleveland-1")
    made.make("network", "mine", "mine_federation", "mine-postgres-1 kit-gate-1")
    for kind in ("container", "volume", "network"):
        made.make(kind, "another", f"another-{kind}")
    return made


def test_all_of_this_project_goes_and_nothing_else(engine: Engine) -> None:
    done = engine.down()
    assert done.returncode == 0, done.stderr
    assert engine.left() == ["another-container", "another-network", "another-volume", "kit-gate-1"]
    assert "nothing is left of mine" in done.stdout
    # A kit's own project is its hospital's; it is told how to remove it.
    assert "compose/down.py kit" in done.stdout


def test_one_that_cannot_be_removed_is_told_and_the_others_go(engine: Engine) -> None:
    engine.make("volume", "mine", "mine_held", "somebody")
    done = engine.down("mine", "another")
    assert done.returncode == 1
    assert "mine_held is in use" in done.stderr
    assert "nothing is left of another" in done.stdout
    assert not [name for name in engine.left() if "federation" in name or "postgres-1" in name]


def test_without_docker_it_says_so(engine: Engine) -> None:
    (engine.root / "bin" / "docker").unlink()
    done = engine.down()
    assert done.returncode == 1
    assert done.stderr.startswith("error: docker compose config")
    assert "Traceback" not in done.stderr
