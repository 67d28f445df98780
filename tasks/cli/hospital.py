"""``fedrisk hospital``: add a hospital to a standing federation, and check that it is ready."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import ExitCode, SettingsError

if TYPE_CHECKING:
    from tasks.settings import Settings


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("hospital", help="add a hospital to a federation, check it")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = actions.add_parser("add", help="make a start-up kit and register the hospital's key")
    add.add_argument("name", metavar="NAME")
    add.add_argument("--public-key", type=Path, help="the hospital's own (better: its private key "
                     "then never leaves it); default: make a pair")  # fmt: skip
    add.add_argument("--superlink", help="HOST:PORT for hospitals (default: FEDRISK_SUPERLINK)")
    add.add_argument("--out", type=Path, required=True, help="folder of the kit; new or empty")
    add.add_argument("--authority", type=Path, help="ca.crt (default: FEDRISK_IDENTITY's)")
    add.add_argument("--credentials", type=Path, help="file of AWS_* lines: the hospital's key")
    remove = actions.add_parser("remove", help="unregister a hospital; it can no longer join")
    remove.add_argument("name", metavar="NAME")
    listing = actions.add_parser("list", help="list the registered hospitals")
    for action in (add, remove, listing):
        action.add_argument("--registered", help="folder of keys (default: FEDRISK_REGISTERED)")
    check = actions.add_parser("check", help="list what a hospital still lacks")
    check.add_argument("--kit", type=Path, default=Path(), help="the kit's folder (default: here)")
    check.add_argument("--study", type=Path, help="study file, to check the table against")
    check.add_argument("--source", metavar="TABLE", help="the hospital's table: path or URL")
    check.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Add, remove, list or check hospitals.

    Raises:
        SettingsError: An argument is not valid.
    """
    if args.action == "check":
        return _check(args, settings)
    registered = args.registered or settings.registered
    if not registered:
        raise SettingsError("name the folder of keys: --registered FOLDER or FEDRISK_REGISTERED.")
    from tasks.onboarding import keys

    folder = Path(registered)
    if args.action == "add":
        return _add(args, settings, folder)
    if args.action == "remove":
        keys.unregister(folder, args.name)
        print(f"{args.name}: unregistered. The standing SuperLink drops it within seconds; take it "
              "out of the chart's values too.")  # fmt: skip
        return 0
    found = keys.registered_keys(folder)
    for name, public in found.items():
        print(f"{name:<35} {keys.fingerprint(public)}")
    unsound = sorted({path.stem for path in folder.glob("*.pub")} - set(found))
    for name in unsound:
        print(f"{name:<35} {name}.pub is not a key that Flower accepts")
    return int(ExitCode.BAD_INPUT) if unsound else 0


def _add(args: argparse.Namespace, settings: Settings, registered: Path) -> int:
    from tasks.launch.environment import read_credentials
    from tasks.onboarding.kit import add_hospital
    from tasks.onboarding.kit_files import registered_values

    superlink = args.superlink or settings.superlink
    authority = args.authority or (
        Path(settings.identity) / "ca.crt" if settings.identity else None
    )
    if not superlink:
        raise SettingsError("the address of the SuperLink is not set: give --superlink HOST:PORT.")
    if authority is None:
        raise SettingsError("name the consortium's ca.crt: --authority FILE or FEDRISK_IDENTITY.")
    credentials = read_credentials(str(args.credentials), args.name) if args.credentials else {}
    public = add_hospital(
        args.name,
        superlink=superlink,
        out=args.out.absolute(),
        registered=registered,
        authority=authority,
        lake=settings.lake or "s3a://fl-demo-data-{hospital}",
        image=settings.images.replace("{image}", "hospital"),
        public_key=args.public_key,
        environment=os.environ,
        credentials=credentials,
    )
    print(
        f"{args.name}: registered in {registered}; a standing SuperLink admits it within seconds, "
        "for runs that start after that."
    )
    if not os.environ.get("FEDRISK_IMAGES"):
        image = settings.images.replace("{image}", "hospital")
        print(f"FEDRISK_IMAGES is not set: the kit uses {image}, which only this machine has.")
    print(f"Its start-up kit is {args.out}. It contains keys: send it over a secure channel.")
    print("Where the SuperLink runs in a cluster, add to its values (registered.values.yaml):\n")
    print(registered_values(args.name, public))
    return 0


def _check(args: argparse.Namespace, settings: Settings) -> int:
    from tasks.onboarding.checks.hospital import check_hospital

    checks = check_hospital(args.kit, settings, args.study, args.source)
    failed = sum(each.state == "missing" for each in checks)
    if args.json:
        print(json.dumps([each.as_json() for each in checks], indent=2))
    else:
        for each in checks:
            print(each.as_text())
        unsure = [each.name for each in checks if each.state == "unknown"]
        end = f"{failed} of {len(checks)} checks failed." if failed else "Nothing is missing."
        print(f"\n{end}" + (f" Could not be checked: {', '.join(unsure)}." if unsure else ""))
    return int(ExitCode.BAD_INPUT) if failed else 0
