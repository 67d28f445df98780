"""The check of the connection to the SuperLink, with real TLS servers."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from tasks.federation.deployment import certificates
from tasks.onboarding import authority
from tasks.onboarding.checks.result import CheckResult
from tasks.onboarding.checks.superlink import check_superlink
from tests.onboarding.conftest import Consortium, tls_server


def by_name(found: list[CheckResult]) -> dict[str, CheckResult]:
    return {each.name: each for each in found}


def signed(consortium: Consortium, names: tuple[str, ...], life: timedelta) -> Path:
    """A certificate of the consortium's authority, with other names or another validity."""
    folder = consortium.federation
    key = load_pem_private_key((folder / authority.AUTHORITY_KEY).read_bytes(), None)
    server = load_pem_private_key((folder / "tls.key").read_bytes(), None)
    made = certificates.sign_server(
        authority.read_certificate(folder / "ca.crt"),
        key,  # type: ignore[arg-type]
        server,  # type: ignore[arg-type]
        names,
        life,
    )
    path = consortium.root / "other.crt"
    path.write_bytes(made.public_bytes(Encoding.PEM))
    return path


def test_a_good_server_passes(consortium: Consortium) -> None:
    kit, own = consortium.add("north"), consortium.federation
    with tls_server(own / "tls.crt", own / "tls.key") as port:
        for host in ("localhost", "127.0.0.1"):
            found = by_name(check_superlink(f"{host}:{port}", kit))
            assert [found[n].state for n in ("connection", "certificate", "clock")] == ["ok"] * 3
            # It is not a SuperLink, so the registration is not known.
            assert found["registration"].state == "unknown"


def test_a_renewed_certificate_needs_no_change_at_the_hospital(consortium: Consortium) -> None:
    kit, own = consortium.add("north"), consortium.federation
    before = (own / "tls.crt").read_bytes()
    authority.renew(own, ("superlink.example.org",))
    assert (own / "tls.crt").read_bytes() != before
    names = certificates.names_of(authority.read_certificate(own / "tls.crt"))
    assert {"superlink.example.org", "fedrisk-superlink", "127.0.0.1"} <= set(names)
    with tls_server(own / "tls.crt", own / "tls.key") as port:
        assert by_name(check_superlink(f"localhost:{port}", kit))["certificate"].state == "ok"


def test_another_authority_is_not_trusted(consortium: Consortium, tmp_path: Path) -> None:
    kit, other = consortium.add("north"), tmp_path / "other"
    authority.init(other, authority.server_names("fedrisk", ()))
    with tls_server(other / "tls.crt", other / "tls.key") as port:
        result = by_name(check_superlink(f"localhost:{port}", kit))["certificate"]
    assert result.state == "missing"
    assert "not signed by the kit's ca.crt" in result.found


def test_a_name_that_the_certificate_lacks_is_named(consortium: Consortium) -> None:
    kit = consortium.add("north")
    made = signed(consortium, ("superlink.example.org",), timedelta(days=9))
    with tls_server(made, consortium.federation / "tls.key") as port:
        for host in ("localhost", "127.0.0.1"):
            result = by_name(check_superlink(f"{host}:{port}", kit))["certificate"]
            assert result.state == "missing"
            assert f"does not name {host}" in result.found
            assert f"--names {host}" in result.advice


def test_an_expired_certificate_is_reported(consortium: Consortium) -> None:
    kit = consortium.add("north")
    made = signed(consortium, ("localhost",), timedelta(seconds=-60))
    with tls_server(made, consortium.federation / "tls.key") as port:
        found = by_name(check_superlink(f"localhost:{port}", kit))
    assert "has expired" in found["certificate"].found
    # The clock is checked too, because it may be the cause.
    assert found["clock"].state == "ok"


@pytest.mark.parametrize(("ahead", "word"), [(400, "behind"), (-120, "ahead of")])
def test_a_wrong_clock_is_reported_with_its_direction(
    consortium: Consortium, ahead: float, word: str
) -> None:
    kit, own = consortium.add("north"), consortium.federation
    with tls_server(own / "tls.crt", own / "tls.key", ahead) as port:
        result = by_name(check_superlink(f"localhost:{port}", kit))["clock"]
    assert result.state == "missing"
    assert word in result.found
    assert "5 s ahead and 300 s behind are tolerated" in result.found


def test_a_clock_within_tolerance_passes(consortium: Consortium) -> None:
    kit, own = consortium.add("north"), consortium.federation
    with tls_server(own / "tls.crt", own / "tls.key", 120) as port:
        result = by_name(check_superlink(f"localhost:{port}", kit))["clock"]
    assert result.state == "ok"
    assert "NTP" in result.advice


def test_an_impossible_name_is_reported(consortium: Consortium) -> None:
    [result] = check_superlink("fl..example:9092", consortium.add("north"))
    assert (result.name, result.state) == ("address", "missing")


def test_a_closed_port_is_reported(consortium: Consortium) -> None:
    kit = consortium.add("north")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        result = check_superlink(f"localhost:{held.getsockname()[1]}", kit)[-1]
    assert (result.name, result.state) == ("connection", "missing")
    assert "firewall" in result.advice


def test_a_server_without_tls_is_reported(consortium: Consortium) -> None:
    kit = consortium.add("north")
    with socket.create_server(("127.0.0.1", 0)) as plain:
        plain.settimeout(10)
        import threading

        def answer() -> None:
            for _ in range(3):
                try:
                    connection = plain.accept()[0]
                except OSError:
                    return
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        found = by_name(check_superlink(f"localhost:{plain.getsockname()[1]}", kit))
        thread.join(10)
    assert "no TLS at this address" in found["certificate"].found


@pytest.mark.parametrize("address", ["", "localhost", "localhost:port"])
def test_an_invalid_address_is_reported(consortium: Consortium, address: str) -> None:
    [result] = check_superlink(address, consortium.add("north"))
    assert "not HOST:PORT" in result.found


def test_a_name_without_address_is_reported(consortium: Consortium) -> None:
    [result] = check_superlink("superlink.invalid:9092", consortium.add("north"))
    assert (result.name, result.state) == ("address", "missing")


def test_init_is_idempotent_and_refuses_other_names(consortium: Consortium) -> None:
    from tasks.errors import SettingsError

    own = consortium.federation
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    assert authority.init(own, authority.server_names("fedrisk", ())) is False
    with pytest.raises(SettingsError, match="fedrisk federation renew"):
        authority.init(own, authority.server_names("fedrisk", ("other.example",)))
    (own / "tls.key").unlink()
    with pytest.raises(SettingsError, match="not empty"):
        authority.init(own, authority.server_names("fedrisk", ()))
    (own / "tls.key").write_bytes(before[own / "tls.key"])
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("name", ["Host.example", "a:9092", "-a", "a..b", "", "a b"])
def test_a_name_that_no_certificate_can_have_is_refused(name: str) -> None:
    from tasks.errors import SettingsError

    with pytest.raises(SettingsError, match="neither a DNS name"):
        authority.server_names("fedrisk", (name,))
