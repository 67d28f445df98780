"""The identities of a self-hosted S3 store (SeaweedFS), each with its owner's rights only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.errors import SettingsError

RUNS = "fedrisk-runs"
"""The bucket of shared runs."""
LAKE = "fl-demo-data-{hospital}"
"""The bucket of a hospital's lake."""
SHARED = ("pool", "consortium")
"""Owners that are not hospitals."""
ADMIN = "admin"
"""Creates buckets; no step of a run gets this key."""


@dataclass(frozen=True)
class Key:
    """An owner's S3 key."""

    access: str
    secret: str = field(repr=False)


def seaweedfs_identities(
    keys: Mapping[str, Key], hospitals: Sequence[str], *, runs: str = RUNS, lake: str = LAKE
) -> dict[str, Any]:
    """Build SeaweedFS's identities file (``-s3.config``), with rights as in docs/deployment.md.

    Args:
        keys: The key of each owner: a hospital, ``pool``, ``consortium`` or ``admin``.
        hospitals: All hospitals of the store.
        runs: Bucket of the runs.
        lake: Bucket of a hospital, with ``{hospital}`` in it.

    Raises:
        SettingsError: A key's owner is unknown, a hospital has a reserved name, or two owners
            share an access key.
    """
    reserved = sorted(set(hospitals) & {*SHARED, ADMIN})
    if reserved:
        raise SettingsError(f"no hospital may be named {', '.join(reserved)}: reserved names.")
    unknown = sorted(set(keys) - {*hospitals, *SHARED, ADMIN})
    if unknown:
        raise SettingsError(f"keys of {', '.join(unknown)}: no hospital and no other owner.")
    if len({key.access for key in keys.values()}) != len(keys):
        raise SettingsError("two owners have the same access key. Give each its own.")
    return {
        "identities": [
            {
                "name": owner,
                "credentials": [{"accessKey": key.access, "secretKey": key.secret}],
                "actions": _actions(owner, hospitals, runs, lake),
            }
            for owner, key in sorted(keys.items())
        ]
    }


def _actions(owner: str, hospitals: Sequence[str], runs: str, lake: str) -> list[str]:
    if owner == ADMIN:
        return ["Admin"]
    owned = hospitals if owner == "pool" else [owner] if owner in hospitals else []
    actions = [f"Read:{runs}", f"List:{runs}", f"Write:{runs}/{owner}/*"]
    for hospital in owned:
        bucket = lake.replace("{hospital}", hospital)
        actions += [f"Read:{bucket}", f"Write:{bucket}", f"List:{bucket}"]
    return actions
