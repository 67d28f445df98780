"""The check of a hospital's key, on a real S3 store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tasks.onboarding.checks.lake import CHECK_PREFIX, check_lake
from tests.lake.s3_server import S3Server, s3_server

pytestmark = pytest.mark.slow
LAKE = {"FEDRISK_LAKE": "s3a://fl-demo-data-{hospital}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("store"), ["north", "south"]) as running:
        yield running


def judged(settings: dict[str, str]) -> dict[str, tuple[str, str]]:
    found = check_lake({**LAKE, **settings}, "north", ["north", "south"])
    assert not [each for each in found if settings["AWS_SECRET_ACCESS_KEY"] in each.as_text()]
    return {each.name: (each.state, each.found) for each in found}


def test_the_own_key_opens_only_the_own_store_and_leaves_nothing(server: S3Server) -> None:
    found = judged(server.environment("north"))
    assert found["own store"][0] == "ok"
    assert found["store of south"] == ("ok", "refuses this key, as it should")
    status, listed = server.request("admin", "GET", "/fl-demo-data-north?list-type=2")
    assert status == 200
    assert CHECK_PREFIX.encode() not in listed


def test_another_hospitals_key_is_reported(server: S3Server) -> None:
    state, words = judged(server.environment("south"))["own store"]
    assert state == "missing"
    assert "refuses this key" in words


def test_a_key_with_too_many_rights_is_reported(server: S3Server) -> None:
    found = judged(server.environment("admin"))
    assert found["own store"][0] == "ok"
    assert found["store of south"][0] == "missing"


def test_a_missing_bucket_and_a_missing_store_are_distinguished(server: S3Server) -> None:
    nowhere = {**server.environment("admin"), "FEDRISK_LAKE": "s3a://fl-demo-data-absent"}
    assert "has no s3a://fl-demo-data-absent" in judged(nowhere)["own store"][1]
    plain = {**server.environment("north"), "FEDRISK_LAKE": "s3a://fl-demo-data-north"}
    assert judged(plain)["store of south"][0] == "ok"
    silent = {**server.environment("north"), "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    assert "does not answer" in judged(silent)["own store"][1]


def test_403_within_a_message_is_not_a_refusal(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An object's name or a request's id contains it by chance once in a few hundred.
    monkeypatch.setattr("tasks.onboarding.checks.lake.secrets.token_hex", lambda _: "403")
    nowhere = {**server.environment("admin"), "FEDRISK_LAKE": "s3a://fl-demo-data-absent"}
    assert "has no s3a://fl-demo-data-absent" in judged(nowhere)["own store"][1]


def test_without_a_key_the_file_to_fill_is_named() -> None:
    [result] = check_lake(LAKE, "north")
    assert result.state == "missing"
    assert "credentials.env" in result.advice
