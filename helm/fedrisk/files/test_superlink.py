"""Check that the SuperLink answers TLS under its name, with a certificate of the hospitals' CA."""

import os
import socket
import ssl
import sys
import time

CA = "/etc/fedrisk/ca/ca.crt"
host, port = os.environ["SUPERLINK"].rsplit(":", 1)


def handshake(context: ssl.SSLContext, name: str) -> dict:
    with (
        socket.create_connection((host, int(port)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=name) as channel,
    ):
        return channel.getpeercert()


trusted = ssl.create_default_context(cafile=CA)
deadline = time.monotonic() + 60
while True:
    try:
        certificate = handshake(trusted, host)
        break
    except ssl.SSLCertVerificationError as error:
        sys.exit(f"{host}:{port}: the certificate is not one of the CA in fedrisk-ca: {error}")
    except OSError as error:
        if time.monotonic() > deadline:
            sys.exit(f"{host}:{port} does not answer TLS: {error}")
        time.sleep(2)
print(f"{host}:{port}: TLS as {[name for _, name in certificate['subjectAltName']]}")
for what, context, name in (
    ("a name that is not the SuperLink's", trusted, "not-the-superlink.invalid"),
    ("no knowledge of the CA", ssl.create_default_context(), host),
):
    try:
        handshake(context, name)
    except ssl.SSLCertVerificationError:
        continue
    sys.exit(f"{host}:{port} was trusted with {what}")
