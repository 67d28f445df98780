"""Each key of the store has its owner's rights only, on a real SeaweedFS."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lake.s3_server import S3Server, s3_server

from tasks.errors import SettingsError
from tasks.lake.identities import Key, seaweedfs_identities

HOSPITALS = ["h1", "h10", "h2"]
"""One name is a prefix of another: a rule must not match both."""
REMOVE = b"<Delete><Object><Key>%s</Key></Object></Delete>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("store"), HOSPITALS) as running:
        for bucket in ("fl-demo-data-h1", "fl-demo-data-h10"):
            assert running.request("pool", "PUT", f"/{bucket}/a/rows.csv", b"1")[0] == 200
        assert running.request("h1", "PUT", "/fedrisk-runs/h1/r/m.json", b"{}")[0] == 200
        yield running


def test_a_hospital_uses_its_own_bucket(server: S3Server) -> None:
    assert server.request("h1", "GET", "/fl-demo-data-h1/a/rows.csv") == (200, b"1")
    assert server.request("h1", "PUT", "/fl-demo-data-h1/b", b"2")[0] == 200
    status, listing = server.request("h1", "GET", "/fl-demo-data-h1?list-type=2&prefix=a")
    assert status == 200
    assert b"<Key>a/rows.csv</Key>" in listing
    assert server.request("h1", "POST", "/fl-demo-data-h1/c?uploads=")[0] == 200
    assert server.request("h1", "DELETE", "/fl-demo-data-h1/b")[0] == 204


@pytest.mark.parametrize("owner", ["h10", "h2", "consortium"])
def test_no_other_owner_reads_writes_lists_or_copies_it(server: S3Server, owner: str) -> None:
    bucket, key = "/fl-demo-data-h1", "/fl-demo-data-h1/a/rows.csv"
    assert server.request(owner, "GET", key)[0] == 403
    assert server.request(owner, "HEAD", key)[0] == 403
    assert server.request(owner, "HEAD", bucket)[0] == 403
    assert server.request(owner, "GET", f"{bucket}?list-type=2")[0] == 403
    assert server.request(owner, "GET", f"{bucket}?uploads=")[0] == 403
    assert server.request(owner, "PUT", f"{bucket}/new", b"x")[0] == 403
    assert server.request(owner, "POST", f"{bucket}/new?uploads=")[0] == 403
    assert server.request(owner, "DELETE", key)[0] == 403
    status, answer = server.request(owner, "POST", f"{bucket}?delete=", REMOVE % b"a/rows.csv")
    assert status == 403 or b"<Code>AccessDenied</Code>" in answer
    own = "/fl-demo-data-h2/copy" if owner == "h2" else f"/fedrisk-runs/{owner}/copy"
    assert server.request(owner, "PUT", own, headers=f"x-amz-copy-source: {key}")[0] == 403
    assert server.request("h1", "GET", key) == (200, b"1")


@pytest.mark.parametrize("owner", ["h1", "h10", "pool", "consortium"])
def test_every_owner_reads_the_runs_and_writes_below_its_own_name(
    server: S3Server, owner: str
) -> None:
    assert server.request(owner, "GET", "/fedrisk-runs/h1/r/m.json") == (200, b"{}")
    assert server.request(owner, "GET", "/fedrisk-runs?list-type=2&prefix=h1%2F")[0] == 200
    own = f"/fedrisk-runs/{owner}/r/n.json"
    assert server.request(owner, "PUT", own, b"{}")[0] == 200
    assert server.request(owner, "DELETE", own)[0] == 204
    for other in {"h1", "h10", "h2", "pool", "consortium", f"{owner}x"} - {owner}:
        path = f"/fedrisk-runs/{other}/r/n.json"
        assert server.request(owner, "PUT", path, b"{}")[0] == 403, other
        assert server.request(owner, "POST", f"{path}?uploads=")[0] == 403, other
        assert server.request(owner, "DELETE", path)[0] == 403, other
    for path in (f"{owner}/../h2/n.json", f"{owner}/%2e%2e/h2/n.json"):
        assert server.request(owner, "PUT", f"/fedrisk-runs/{path}", b"{}")[0] in (400, 403)
    assert server.request(owner, "PUT", "/fedrisk-runs/n.json", b"{}")[0] == 403


def test_the_pool_uses_every_hospitals_bucket(server: S3Server) -> None:
    for name in HOSPITALS:
        path = f"/fl-demo-data-{name}/dealt.csv"
        assert server.request("pool", "PUT", path, b"1")[0] == 200
        assert server.request("pool", "GET", path) == (200, b"1")


@pytest.mark.parametrize("owner", ["h1", "pool", "consortium"])
def test_only_the_administrator_makes_and_removes_buckets(server: S3Server, owner: str) -> None:
    assert server.request(owner, "PUT", "/one-more")[0] == 403
    assert server.request(owner, "PUT", "/one-more/object", b"x")[0] in (403, 404)
    assert server.request(owner, "DELETE", "/fl-demo-data-h1")[0] == 403
    assert server.request(owner, "DELETE", "/fedrisk-runs")[0] == 403
    assert server.request(owner, "PUT", "/fl-demo-data-h1?policy=", b"{}")[0] == 403
    assert server.request("admin", "PUT", f"/one-beside-{owner}")[0] == 200


def test_a_wrong_secret_and_no_key_are_refused(server: S3Server) -> None:
    forged = S3Server(server.endpoint, {"h1": Key(server.keys["h1"].access, "guessed")})
    assert forged.request("h1", "GET", "/fl-demo-data-h1/a/rows.csv")[0] == 403
    stranger = S3Server(server.endpoint, {"h1": Key("nobody", "nothing")})
    assert stranger.request("h1", "GET", "/fl-demo-data-h1/a/rows.csv")[0] == 403


def test_a_key_belongs_to_one_known_owner() -> None:
    key, other = Key("a", "s"), Key("b", "s")
    with pytest.raises(SettingsError, match="keys of h3"):
        seaweedfs_identities({"h3": key}, ["h1"])
    with pytest.raises(SettingsError, match="named pool"):
        seaweedfs_identities({"pool": key}, ["pool"])
    with pytest.raises(SettingsError, match="same access key"):
        seaweedfs_identities({"h1": key, "pool": Key("a", "t")}, ["h1"])
    made = seaweedfs_identities({"h1": key, "h2": other}, ["h1", "h2"])
    assert [each["name"] for each in made["identities"]] == ["h1", "h2"]
    assert "secret" not in repr(key)
