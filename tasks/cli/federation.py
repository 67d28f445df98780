"""``fedrisk federation``: the certificate authority and the SuperLink's certificate."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.settings import Settings


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("federation", help="make or renew the SuperLink's certificate")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    init = actions.add_parser("init", help="make a certificate authority and the certificate")
    init.add_argument("--out", type=Path, required=True, help="folder; new or empty")
    renew = actions.add_parser("renew", help="renew the certificate; hospitals change nothing")
    renew.add_argument("--out", type=Path, required=True, help="folder of `federation init`")
    for action in (init, renew):
        action.add_argument(
            "--names",
            default="",
            help="DNS names and IP addresses, comma-separated, at which hospitals reach the "
            "SuperLink, beside its names in the cluster",
        )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Make or renew the certificate.

    Raises:
        SettingsError: A name is not valid, or the folder is not as expected.
    """
    from tasks.onboarding import authority

    out: Path = args.out
    further = tuple(name.strip() for name in args.names.split(",") if name.strip())
    names = authority.server_names(settings.namespace, further)
    if args.action == "renew":
        end = authority.renew(out, further)
        print(
            f"{out / 'tls.crt'}: renewed until {end:%Y-%m-%d}. Replace the old one at the "
            "SuperLink, which picks it up by itself within 10 s; hospitals keep their ca.crt."
        )
    elif authority.init(out, names):
        print(f"{out}: made for {', '.join(names)}.")
        print(
            "The SuperLink gets ca.crt, tls.crt and tls.key (FEDRISK_IDENTITY), hospitals ca.crt."
        )
        print(f"Keep {out / authority.AUTHORITY_KEY} off line: it signs renewals, due in a year.")
    else:
        print(f"{out}: exists already with these names; nothing was changed.")
    return 0
