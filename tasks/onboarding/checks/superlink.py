"""Check that a hospital reaches the SuperLink, can verify its certificate, and is registered."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from base64 import b64encode
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from tasks.errors import SettingsError
from tasks.onboarding.checks.result import CheckResult, missing, ok, unknown

CONNECT_DEADLINE = 10.0
"""Seconds for one connection, its handshake or its response."""
MAX_CLOCK_AHEAD = 5.0
"""Seconds that the hospital's clock may be ahead: Flower refuses later signatures."""
MAX_CLOCK_BEHIND = 300.0
"""Seconds that it may be behind: Flower refuses older signatures."""
NAME_FAULTS = (62, 64)
"""OpenSSL's verification codes of a certificate without the host's name or IP address."""


def check_superlink(address: str, kit: Path) -> list[CheckResult]:
    """Check address, connection, certificate, clock and registration, up to the first obstacle.

    Args:
        address: ``host:port``.
        kit: Folder with ``ca.crt`` and ``node.key``.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdigit():
        return [
            missing(
                "address",
                f"FEDRISK_SUPERLINK is {address!r}, not HOST:PORT",
                "Correct it in hospital.env.",
            )
        ]
    try:
        resolved = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        # UnicodeError for an impossible name, such as one with two dots in a row.
        return [
            missing(
                "address",
                f"{host} has no IP address here",
                "Ask the network's administrator for DNS, or the consortium for the right address.",
            )
        ]
    found = [ok("address", f"{host} is {resolved[0][4][0]}")]
    try:
        socket.create_connection((host, int(port)), CONNECT_DEADLINE).close()
    except OSError as error:
        why = (
            f"no answer in {CONNECT_DEADLINE:g} s"
            if isinstance(error, TimeoutError)
            else error.strerror
        )
        return [
            *found,
            missing(
                "connection",
                f"{address} accepts no TCP connection ({why})",
                f"Let this machine reach {address} (firewall, proxy), or ask whether the SuperLink "
                "is up.",
            ),
        ]
    found.append(ok("connection", f"{address} accepts TCP connections"))
    try:
        context = ssl.create_default_context(cafile=str(kit / "ca.crt"))
    except (OSError, ssl.SSLError):
        return [*found, unknown("certificate", "needs a valid ca.crt")]
    certificate = _certificate(context, host, int(port))
    found += [certificate, _clock(host, int(port))]
    if certificate.state == "ok":
        found.append(_registered(context, host, int(port), kit))
    return found


def _certificate(context: ssl.SSLContext, host: str, port: int) -> CheckResult:
    what = "certificate"
    try:
        with (
            socket.create_connection((host, port), CONNECT_DEADLINE) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            held: Any = secure.getpeercert() or {}
            days = (ssl.cert_time_to_seconds(held["notAfter"]) - time.time()) / 86400
            return ok(what, f"of the consortium, names {host}, valid for {days:.0f} days")
    except ssl.SSLCertVerificationError as error:
        if error.verify_code in NAME_FAULTS:
            return missing(
                what,
                f"the SuperLink's certificate does not name {host}",
                f"Ask the consortium for `fedrisk federation renew --names {host}`, or use an "
                "address that it names.",
            )
        if error.verify_code in (9, 10):
            when = "has expired" if error.verify_code == 10 else "is not valid yet"
            return missing(
                what,
                f"the SuperLink's certificate {when} by this machine's clock",
                "If the clock is right: ask the consortium for `fedrisk federation renew`.",
            )
        return missing(
            what,
            f"is not signed by the kit's ca.crt ({error.verify_message})",
            "A proxy may intercept TLS: exempt this connection from it. Or ask the consortium "
            "whether ca.crt is still the right one.",
        )
    except (OSError, ssl.SSLError) as error:
        return missing(
            what,
            f"no TLS at this address ({getattr(error, 'reason', None) or type(error).__name__})",
            "Check the port, and whether a proxy is in between.",
        )


def _clock(host: str, port: int) -> CheckResult:
    """Compare clocks; only a hint, so the certificate is not verified."""
    what = "clock"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_DEADLINE, context=context)
    try:
        before = time.time()
        connection.request("GET", "/")
        date = connection.getresponse().getheader("Date")
        now = (before + time.time()) / 2
        if date is None:
            return unknown(what, "the SuperLink does not send its time", "Check that NTP is on.")
        # The header has whole seconds.
        off = now - (parsedate_to_datetime(date).timestamp() + 0.5)
    except (OSError, http.client.HTTPException, ValueError, TypeError):
        return unknown(what, "the SuperLink does not send its time", "Check that NTP is on.")
    finally:
        connection.close()
    word = "ahead of" if off > 0 else "behind"
    side = f"this machine's clock is {abs(off):.0f} s {word} the SuperLink's"
    if not -MAX_CLOCK_BEHIND < off <= MAX_CLOCK_AHEAD:
        return missing(
            what,
            f"{side}; {MAX_CLOCK_AHEAD:g} s ahead and {MAX_CLOCK_BEHIND:g} s behind are tolerated",
            "Set the clock by NTP. If it is right, inform the consortium.",
        )
    if off < -MAX_CLOCK_AHEAD:
        return CheckResult(what, "ok", side, "This is tolerated, but set the clock by NTP.")
    return ok(what, f"within {MAX_CLOCK_AHEAD:g} s of the SuperLink's")


def _registered(context: ssl.SSLContext, host: str, port: int, kit: Path) -> CheckResult:
    """Send a signed request that changes nothing.

    Flower looks the key up before it checks the heartbeat interval, so a request with an invalid
    interval shows whether the key is registered, and activates no node.
    """
    what = "registration"
    try:
        from flwr.common.constant import TIMESTAMP_HEADER
        from flwr.proto.fleet_pb2 import ActivateNodeRequest
        from flwr.supercore.constant import (
            FLEET_HTTP_PUBLIC_KEY_HEADER,
            FLEET_HTTP_SIGNATURE_HEADER,
        )
        from flwr.supercore.error import ApiErrorCode, FlowerError
        from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
        from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
    except ImportError:
        return unknown(what, "visible only when the SuperNode connects (fedrisk without Flower)")
    from tasks.onboarding.keys import read_private_key

    try:
        key = read_private_key(kit / "node.key")
    except SettingsError:
        return unknown(what, "needs a valid node.key")
    public, signed = public_key_to_bytes(key.public_key()), datetime.now(UTC).isoformat()
    connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_DEADLINE, context=context)
    try:
        connection.request(
            "POST",
            "/v1/fleet/activate-node",
            ActivateNodeRequest(public_key=public, heartbeat_interval=-1).SerializeToString(),
            {
                "Content-Type": PROTOBUF_MEDIA_TYPE,
                "Accept": PROTOBUF_MEDIA_TYPE,
                FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public).decode(),
                TIMESTAMP_HEADER: signed,
                FLEET_HTTP_SIGNATURE_HEADER: b64encode(
                    sign_message(key, signed.encode("ascii"))
                ).decode(),
            },
        )
        answer = connection.getresponse()
        status, text = answer.status, answer.read(1 << 16).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return unknown(what, f"the SuperLink did not answer ({type(error).__name__})")
    finally:
        connection.close()
    if status == http.HTTPStatus.UNAUTHORIZED:
        return missing(
            what, "the SuperLink refuses the node's signature", "Set the clock right (see clock)."
        )
    refusal = FlowerError.from_json(text) if text.startswith("{") else None
    code = refusal.code if refusal else None
    if code == ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL:
        return ok(what, "the SuperLink knows this hospital's key")
    if code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
        return missing(
            what,
            "the SuperLink does not know this hospital's key",
            "Send the consortium node.pub for `fedrisk hospital add`; no restart is needed.",
        )
    return unknown(what, f"visible only when the SuperNode connects (the SuperLink: {status})")
