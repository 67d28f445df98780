"""The real Kubernetes of the tests: started once, left as it was found.

It stands beside the checkout where fedrisk is developed (``../shared/cluster``) and nowhere else.
``start_cluster`` builds what is missing, starts it and may be called again; ``stop_cluster`` ends
it only where this process started it. Import the fixture ``cluster`` into a test module, or call
the functions.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cluster_images import write_images

from smoke.waits import until

CLUSTER = Path(__file__).parent.parent.parent / "shared" / "cluster"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fedrisk"
HELM = "v3.18.6"
LOADS = 3
"""Tries to load images, of which one may meet the end of a former run's clean-up."""
_started: list[bool] = []


def missing() -> str:
    """Why there is no cluster here, or nothing."""
    if not CLUSTER.is_dir():
        return "the test cluster stands beside the checkout only where fedrisk is developed"
    if os.geteuid() != 0:
        return "the test cluster is started by root"
    return ""


def need_cluster() -> None:
    """Skip the test where there is no cluster, or fail where one must be."""
    reason = missing()
    if reason and os.environ.get("REQUIRE_SHARED_DATA") == "1":
        pytest.fail(f"this must not be skipped here: {reason}")
    if reason:
        pytest.skip(reason)


@functools.cache
def places() -> dict[str, str]:
    """The cluster's own settings (``K8S_*``)."""
    script = f'. "{CLUSTER}/cluster.env"; for v in ${{!K8S_@}}; do echo "$v=${{!v}}"; done'
    found = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, timeout=400
    ).stdout
    return dict(line.split("=", 1) for line in found.splitlines())


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold the cluster's lock: two test runs on one machine must not start it together."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "cluster.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(command: list[str], timeout: float, **options: object) -> str:
    done = subprocess.run(  # type: ignore[call-overload]
        command, capture_output=True, text=True, timeout=timeout, **options
    )
    if done.returncode:
        told = (done.stderr.strip() or done.stdout.strip())[-4000:]
        raise RuntimeError(f"{' '.join(command[:8])} ended with {done.returncode}: {told}")
    return str(done.stdout)


def start_cluster() -> Path:
    """Build what is missing, start what does not run, and wait until it answers.

    Minutes the first time on a machine, ten seconds later, nothing where it runs.

    Returns:
        The kubeconfig of an administrator.
    """
    need_cluster()
    kubeconfig = Path(places()["K8S_KUBECONFIG"])
    with _alone():
        if kubeconfig.exists():
            with contextlib.suppress(RuntimeError, FileNotFoundError):
                kubectl("get", "--raw", "/readyz", timeout=60)
                return kubeconfig
        _run([str(CLUSTER / "setup")], timeout=1800)
        # Not piped: what it starts keeps the pipe open.
        with (CACHE / "cluster-up.log").open("w") as log:
            code = subprocess.run(
                [CLUSTER / "cluster-up"], stdout=log, stderr=log, timeout=300, check=False
            ).returncode
        if code:
            raise RuntimeError(
                f"the cluster did not start: {(CACHE / 'cluster-up.log').read_text()}"
            )
        _started.append(True)
    return kubeconfig


def stop_cluster() -> None:
    """Stop the cluster if this process started it."""
    if not _started:
        return
    with _alone():
        _started.clear()
        _run([str(CLUSTER / "cluster-down")], timeout=400)


def kubectl(
    *arguments: str, namespace: str = "", text: str | None = None, timeout: float = 60
) -> str:
    """Run ``kubectl`` as administrator and return what it says.

    Args:
        arguments: Its command line.
        namespace: Where.
        text: Its standard input.
        timeout: Seconds.

    Raises:
        RuntimeError: It failed; the message has its last words.
    """
    at = ["-n", namespace] if namespace else []
    command = [f"{places()['K8S_BIN']}/kubebox", "kubectl", *at, *arguments]
    environment = {**os.environ, "KUBECONFIG": places()["K8S_KUBECONFIG"]}
    return _run(command, timeout, input=text, env=environment)


def helm_program() -> str:
    """Where Helm is; built from its source the first time (a minute and a half)."""
    own = CACHE / "bin" / "helm"
    if own.exists():
        return str(own)
    found = shutil.which("helm")
    if found:
        return found
    if not shutil.which("go"):
        reason = "neither helm nor go is on PATH"
        if os.environ.get("REQUIRE_SHARED_DATA") == "1":
            pytest.fail(f"this must not be skipped here: {reason}")
        pytest.skip(reason)
    with _alone():
        if not own.exists():
            environment = {**os.environ, "GOBIN": str(own.parent), "CGO_ENABLED": "0"}
            package = f"helm.sh/helm/v3/cmd/helm@{HELM}"
            _run(["go", "install", "-ldflags=-s -w", package], timeout=1200, env=environment)
    return str(own)


def helm(*arguments: str, text: str | None = None, timeout: float = 120) -> str:
    """Run ``helm`` as administrator and return what it says.

    Args:
        arguments: Its command line.
        text: Its standard input (``-f -``).
        timeout: Seconds.

    Raises:
        RuntimeError: It failed; the message has its last words.
    """
    environment = dict(os.environ)
    if not missing():
        environment["KUBECONFIG"] = places()["K8S_KUBECONFIG"]
    return _run([helm_program(), *arguments], timeout, input=text, env=environment)


def load_images(*names: str) -> None:
    """Make images of this machine's Docker known to the cluster, which gets the layers it lacks.

    Args:
        names: ``name:tag``, each of Docker's.

    Raises:
        RuntimeError: Docker does not have one, or the cluster does not take it.
    """
    with _alone():
        for left in reversed(range(LOADS)):
            output, code = _load(names)
            if not code:
                break
            # The cluster's collector may still be at what a former run replaced, and take a layer
            # from under the import, which had counted on it (containerd's issue 10835).
            if "snapshot" not in output or not left:
                raise RuntimeError(f"load-image {' '.join(names)}: {output[-4000:]}")
        _forget_replaced()


def _load(names: Sequence[str]) -> tuple[str, int]:
    """Give the cluster what it lacks of the images now: what its importer said, and its code."""
    listed = f'. "{CLUSTER}/cluster.env"; ctrk content ls -q'
    known = set(_run(["bash", "-c", listed], timeout=400).split())
    load = subprocess.Popen(
        [CLUSTER / "load-image", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    limit = threading.Timer(900, load.kill)
    limit.start()
    try:
        # It may end before it has read all, and says why.
        with contextlib.suppress(BrokenPipeError):
            write_images(names, known, load.stdin)
        output = load.communicate()[0].decode()
    finally:
        limit.cancel()
        load.kill()
    return output, load.returncode


def _forget_replaced() -> None:
    """Let the cluster forget images to which no name leads any more: each is gigabytes."""
    known = f'. "{CLUSTER}/cluster.env"; ctrk images'
    rows = [row.split() for row in _run(["bash", "-c", f"{known} ls"], 60).splitlines()[1:]]
    named = {digest for name, _, digest, *_ in rows if not name.startswith("sha256:")}
    gone = [n for n, _, digest, *_ in rows if n.startswith("sha256:") and digest not in named]
    if gone:
        _run(["bash", "-c", f'{known} rm --sync "$@"', "forget", *gone], timeout=400)


@contextlib.contextmanager
def namespace(name: str) -> Iterator[str]:
    """A namespace that was not there before and is not there afterwards, nor its volumes."""
    kubectl("delete", "namespace", name, "--ignore-not-found", "--wait", timeout=400)
    kubectl("create", "namespace", name)
    try:
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait", timeout=400)
        until(f"the volumes of {name} are gone", lambda: not volumes(name), 60)


@contextlib.contextmanager
def volumes_of_user(user: int = 1000) -> Iterator[None]:
    """Give new volumes to a user, as a storage driver does by a pod's fsGroup.

    The test cluster's volumes are folders of root's (mode 0750), and Kubernetes applies no fsGroup
    to such; a pod that is not root's could not write to its own volume.
    """
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.3):
            for folder in Path("/tmp/hostpath_pv").glob("*"):
                with contextlib.suppress(OSError):
                    if folder.stat().st_uid == 0:
                        os.chown(folder, user, user)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join(5)


def volumes(namespace: str) -> list[str]:
    """The persistent volumes that claims of a namespace have."""
    found = json.loads(kubectl("get", "persistentvolumes", "-o", "json"))["items"]
    claims = [(v["metadata"]["name"], v["spec"].get("claimRef", {})) for v in found]
    return [name for name, claim in claims if claim.get("namespace") == namespace]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """A running cluster's kubeconfig."""
    yield start_cluster()
    stop_cluster()


def main() -> None:
    """Start the cluster, which stays, and give it the images of the tests."""
    from smoke.cluster.stages import IMAGES, S3_IMAGE

    # A shell ignores it for what it starts in the background, and the pods would inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    start_cluster()
    load_images(S3_IMAGE, *(f"fedrisk-{name}:dev" for name in IMAGES))


if __name__ == "__main__":
    main()
