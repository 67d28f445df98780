"""``fedrisk hospital check``: check everything that a hospital needs.

Read-only except for one object that is written to the hospital's own store and deleted again; no
row and no value leaves the machine.
"""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tasks.errors import FedriskError, SettingsError, StudyError
from tasks.onboarding.authority import read_certificate
from tasks.onboarding.checks.lake import check_lake
from tasks.onboarding.checks.result import CheckResult, missing, ok, unknown
from tasks.onboarding.checks.superlink import check_superlink
from tasks.onboarding.keys import fingerprint, public_text, read_private_key, read_public_key
from tasks.run.sources import is_remote
from tasks.settings import Settings
from tasks.study import Study, read_study
from tasks.study.approval import read_approved, terms_digest

PRIVATE = ("node.key", "credentials.env")
EXPIRY_WARNING = timedelta(days=30)


def check_hospital(
    kit: Path, settings: Settings, study_file: Path | None = None, source: str | None = None
) -> list[CheckResult]:
    """Run all checks; a failure stops only the checks that depend on it.

    Args:
        kit: The kit's folder.
        settings: The engine that reads the table.
        study_file: A study to check approval and table against.
        source: Path or URL of the hospital's table.
    """
    found: list[CheckResult] = []
    kept = _variables(kit / "hospital.env", found, needed=True)
    kept |= _variables(kit / "credentials.env", found, needed=False)
    found += [*_private_files(kit), _key_pair(kit), _authority(kit)]
    name = _own_name(kit)
    study: Study | None = None
    if study_file is not None:
        try:
            study = read_study(study_file)
            found.append(ok("study", f"{study.name} in {study_file} is sound"))
        except FedriskError as error:
            found.append(missing("study", str(error), "Ask the consortium for the study file."))
    found.append(_approved(kit / "approved.yaml", study))
    found += check_superlink(kept.get("FEDRISK_SUPERLINK", ""), kit)
    found += check_lake(kept, name, sorted(study.hospitals) if study else [])
    if study is not None:
        found.append(_takes_part(name, study))
    if study is not None and source is not None:
        with _credentials(kept):
            found.append(_table(study, name, source, settings))
    elif source is not None and study_file is None:
        found.append(unknown("table", "cannot be checked without a study", "Add --study."))
    return found


def _variables(path: Path, found: list[CheckResult], *, needed: bool) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        if needed:
            why = getattr(error, "strerror", None) or "not UTF-8"
            found.append(missing(path.name, f"cannot be read ({why})", "Take it from the kit."))
        return {}
    pairs: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        key, sign, value = line.partition("=")
        if not sign or not key.startswith(("AWS_", "FEDRISK_", "PG")):
            found.append(
                missing(path.name, f"line {number} is not NAME=value", "Correct the line.")
            )
            return pairs
        pairs[key.strip()] = value.strip()
    if needed:
        found.append(ok(path.name, f"{len(pairs)} settings"))
    return pairs


def _private_files(kit: Path) -> list[CheckResult]:
    found = []
    for name in PRIVATE:
        path = kit / name
        if path.exists():
            mode = path.stat().st_mode & 0o777
            found.append(
                ok(f"{name}, access", "for its owner only")
                if not mode & 0o077
                else missing(
                    f"{name}, access", f"others may read it (mode {mode:o})", f"chmod 600 {path}"
                )
            )
    return found


def _key_pair(kit: Path) -> CheckResult:
    what = "node key"
    try:
        public = public_text(read_private_key(kit / "node.key").public_key())
    except SettingsError as error:
        return missing(what, str(error), "Put the private key of node.pub here as node.key.")
    try:
        registered = read_public_key(kit / "node.pub")
    except SettingsError as error:
        return missing(what, str(error), "Take node.pub from the kit.")
    if registered != public:
        return missing(
            what,
            "node.key and node.pub are not a pair",
            f"The consortium registered {fingerprint(registered)}: use its private key, or send "
            "the consortium the public key of this one.",
        )
    return ok(what, f"pair {fingerprint(public)}")


def _authority(kit: Path) -> CheckResult:
    what = "ca.crt"
    try:
        certificate = read_certificate(kit / what)
    except SettingsError as error:
        return missing(what, str(error), "Take ca.crt from the kit, or ask the consortium for it.")
    now = datetime.now(UTC)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    valid = f"valid {begin:%Y-%m-%d} to {end:%Y-%m-%d}"
    if not begin <= now <= end:
        return missing(
            what,
            f"{valid}, and this machine's clock says {now:%Y-%m-%d}",
            "Set the clock, if it is wrong; else ask the consortium for its new ca.crt.",
        )
    if end - now < EXPIRY_WARNING:
        return CheckResult(what, "ok", valid, "It expires soon: ask the consortium for a new one.")
    return ok(what, valid)


def _own_name(kit: Path) -> str:
    """The hospital's name, from the comment of its public key."""
    try:
        words = (kit / "node.pub").read_text(encoding="utf-8").split()
        base64.b64decode(words[1])
        return words[2]
    except (OSError, UnicodeDecodeError, ValueError, IndexError):
        return ""


def _approved(path: Path, study: Study | None) -> CheckResult:
    what = "approved studies"
    try:
        approved = read_approved(path)
    except SettingsError as error:
        return missing(what, str(error), "Correct the file; `studies: []` approves none.")
    reason = approved.refusal(study) if study else None
    if study and reason:
        return missing(
            what,
            reason,
            f"To approve these terms, put into {path} below studies:\n"
            f"{'':<10}     - name: {study.name}\n{'':<10}       digest: {terms_digest(study)}",
        )
    if not approved.studies:
        return missing(what, "none is approved yet", f"Name one in {path}.")
    return ok(what, ", ".join(each.name for each in approved.studies))


def _table(study: Study, name: str, source: str, settings: Settings) -> CheckResult:
    """What the run's own data steps say of the table: counts only and no values."""
    what = "table"
    try:
        # A hospital that only asks for its connection needs no engine.
        from tasks.data.table_check import check_own_table
    except ImportError as error:
        return unknown(what, f"{error}: install fedrisk with its extra data")
    if name not in study.hospitals:
        return unknown(what, f"cannot be checked: study {study.name} does not name this hospital")
    address = source if is_remote(source) else str(Path(source.removeprefix("file://")).absolute())
    try:
        said = check_own_table(study, name, address, settings)
    except StudyError as error:
        return missing(what, str(error), "Correct --source.")
    except FedriskError as error:
        return unknown(what, str(error))
    if said.error:
        return missing(what, said.error, "Correct the table, or ask to change the study.")
    return ok(what, str(said))


@contextlib.contextmanager
def _credentials(kept: Mapping[str, str]) -> Iterator[None]:
    """Have the kit's keys of store and database in the environment, where steps look for them."""
    before = dict(os.environ)
    os.environ.update({k: v for k, v in kept.items() if k.startswith(("AWS_", "PG"))})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _takes_part(name: str, study: Study) -> CheckResult:
    what = "hospital in the study"
    if not name:
        return unknown(what, "the kit does not name this hospital (third word of node.pub)")
    if name in study.hospitals:
        return ok(what, f"{name} takes part in {study.name}")
    return missing(
        what, f"study {study.name} does not name {name}", "Ask the consortium to add the hospital."
    )
