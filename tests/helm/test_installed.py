"""The chart before the real API server: what it accepts, and what an upgrade finds and keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helm_chart import API, CHART, objects_of, values_of
from kubernetes_cluster import helm, kubectl, namespace

SPACE, RELEASE = "chart-test", "fedrisk"
VALUES = ["", "kind", "plain", "eks", "hospital", "everything"]
KEPT = ("fedrisk-authority", "fedrisk-superlink", "fedrisk-s3-closed")
pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.shared]


@pytest.mark.parametrize("name", VALUES)
def test_the_api_server_accepts_all_that_is_rendered(cluster: Path, name: str) -> None:
    text = helm("template", RELEASE, str(CHART), "-n", "default", *API, *values_of(name))
    said = kubectl("apply", "--dry-run=server", "-f", "-", text=text, namespace="default")
    lines = said.splitlines()
    assert len(lines) >= text.count("\nkind: ")
    assert all(line.endswith("(server dry run)") for line in lines)


def test_an_upgrade_keeps_the_certificates_that_are_there(cluster: Path) -> None:
    def certificates(*options: str) -> dict[str, dict[str, str]]:
        command = ["template", RELEASE, str(CHART), "-n", SPACE, "--dry-run=server"]
        found = objects_of(helm(*command, *values_of("kind"), *options))
        for name in KEPT:
            body = json.dumps(found["Secret", name])
            if not options:
                kubectl("apply", "-f", "-", namespace=SPACE, text=body)
        return {name: found["Secret", name]["data"] for name in KEPT}

    with namespace(SPACE):
        first = certificates()
        assert certificates() == first
        # Another name needs another certificate, of the same authority.
        other = certificates("--set", "tls.names={superlink.example.org}")
        assert [name for name in KEPT if other[name] != first[name]] == ["fedrisk-superlink"]
    with namespace(SPACE):
        assert not any(certificates()[name] == first[name] for name in KEPT)
