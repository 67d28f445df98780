"""Make a hospital's start-up kit and register its key."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from tasks.errors import SettingsError
from tasks.onboarding import kit_files
from tasks.onboarding.authority import authority_text
from tasks.onboarding.folders import new_folder
from tasks.onboarding.keys import check_new, parse_public_key, read_public_key, register, unregister
from tasks.onboarding.kit_files import KitFacts

SHARED = ("AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ALLOW_HTTP")
"""Settings of the store that are not secret."""


def add_hospital(
    name: str,
    *,
    superlink: str,
    out: Path,
    registered: Path,
    authority: Path,
    lake: str,
    image: str,
    public_key: Path | None = None,
    environment: Mapping[str, str] | None = None,
    credentials: Mapping[str, str] | None = None,
) -> str:
    """Make the kit's folder and register the hospital; both or neither.

    Args:
        name: The hospital's name.
        superlink: ``host:port`` at which the hospital reaches the SuperLink.
        out: The kit's folder; new or empty.
        registered: FEDRISK_REGISTERED.
        authority: The consortium's ``ca.crt``.
        lake: Root of the hospital's lake; ``{hospital}`` stands for its name.
        image: The image of a SuperNode.
        public_key: The hospital's own public key; None to make a pair.
        environment: Variables; the store's address and region go into the kit.
        credentials: The ``AWS_*`` key of the hospital's store.

    Returns:
        The hospital's public key.

    Raises:
        SettingsError: An argument is not valid, or the hospital or its key is registered.
    """
    from tasks.federation.deployment.certificates import make_node_key, write_private

    host, _, port = superlink.rpartition(":")
    if not host.strip("[]") or not port.isdigit() or not 0 < int(port) < 65536:
        raise SettingsError(
            f"--superlink {superlink}: expected HOST:PORT, such as fl.example:9092."
        )
    public = read_public_key(public_key) if public_key else None
    check_new(registered, name, public)
    certificate = authority_text(authority)
    done = False
    try:
        with new_folder(out) as folder:
            private = ""
            if public is None:
                with tempfile.TemporaryDirectory(dir=folder) as made:
                    key, half = make_node_key(Path(made))
                    private = key.read_text(encoding="ascii")
                    public = parse_public_key(half.read_bytes(), str(half))
            facts = KitFacts(
                name=name,
                superlink=superlink,
                public=public,
                authority=certificate,
                image=image,
                lake=lake,
                private=private,
                settings={k: v for k, v in (environment or {}).items() if k in SHARED and v},
                credentials=dict(credentials or {}),
            )
            _fill(folder, facts)
            if private:
                write_private(folder / "node.key", private.encode())
            register(registered, name, public)
            done = True
    except BaseException:
        if done:
            unregister(registered, name)
        raise
    return public


def _fill(folder: Path, facts: KitFacts) -> None:
    from tasks.federation.deployment.certificates import write_private

    texts = {
        "node.pub": f"{facts.public} {facts.name}\n",
        "ca.crt": facts.authority,
        "hospital.env": kit_files.environment(kit_files.settings(facts)),
        "values.yaml": kit_files.values(facts),
        "network.values.yaml": kit_files.network_values(facts),
        "compose.yaml": kit_files.compose(facts),
        "approved.yaml": kit_files.APPROVED,
        "README.md": kit_files.readme(facts),
        "check.sh": kit_files.CHECK.format(image=facts.image),
        "registered.values.yaml": kit_files.registered_values(facts.name, facts.public),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "check.sh").chmod(0o755)
    write_private(folder / "credentials.env", kit_files.environment(facts.credentials).encode())
