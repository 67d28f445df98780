"""Read a study from YAML, with overrides and with errors that name file, line and key."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedBase
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarint import ScalarInt

from tasks.errors import StudyError
from tasks.study.base import PaddedNumber
from tasks.study.listed import (
    HospitalList,
    Listed,
    list_of,
    listed,
    read_list,
    with_hospitals,
)
from tasks.study.study import Study

MAX_ERRORS = 10


def find_study(name_or_file: str, folder: Path) -> Path:
    """Find the file of a study by its name or path.

    Args:
        name_or_file: A name such as ``stroke``, or the path of a YAML file.
        folder: Where named studies are.

    Raises:
        StudyError: There is no such study.
    """
    if name_or_file.endswith((".yaml", ".yml")):
        path = Path(name_or_file)
        if not path.is_file():
            raise StudyError(f"{path}: no such study file.")
        return path
    path = folder / f"{name_or_file}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise StudyError(
            f"no study named {name_or_file!r} in {folder} (there: {known}). Name one of them, or "
            "give the path of a YAML file."
        )
    return path


def read_study(
    path: Path, overrides: Sequence[str] = (), hospitals: HospitalList | None = None
) -> Study:
    """Read and check a study file.

    Args:
        path: The YAML file (UTF-8).
        overrides: ``path.to.key=value`` each, the value in YAML; checked like the file.
        hospitals: In place of the list that is kept beside the file (``hospitals.from``).

    Raises:
        StudyError: The file cannot be read or is not valid; the message has one line per fault
            with file, line, key and what was expected.
    """
    tree = _tree(path)
    named = [item for item in overrides if _names_hospitals(item)]
    overridden = [_override(tree, item) for item in named]
    asked = None if named else _asked(path, tree)
    if asked is not None:
        try:
            hospitals = hospitals or _listed_before(path, asked)
            tree.update(with_hospitals(_plain(tree), hospitals))
        except ValueError as error:
            line = _line(tree, ("hospitals", "from"))
            raise StudyError(f"{path}:{line}: hospitals.from: {error}.") from None
    overridden += [_override(tree, item) for item in overrides if item not in named]
    return _validated(path, tree, overridden)


def read_table_study(path: Path, asked: Listed, overrides: Sequence[str] = ()) -> Study:
    """Read what a study file says of its one table, as a study of two sites.

    Args:
        path: The YAML file.
        asked: What it says of its hospitals.
        overrides: As for ``read_study``.

    Raises:
        StudyError: That part is not sound.
    """
    tree = _tree(path)
    overridden = [_override(tree, item) for item in overrides]
    for key in {*tree} - {"name", "title", "pooling", "id", "target", "columns", "source", "split"}:
        del tree[key]
    columns = tree.get("columns")
    for column in columns.values() if isinstance(columns, dict) else ():
        if isinstance(column, dict):
            # It names hospitals, which are not known yet.
            column.pop("optional_at", None)
    try:
        any_two = HospitalList(asked=asked, hospitals={"a": "a", "b": "b"})
        tree.update(with_hospitals(_plain(tree), any_two))
    except ValueError as error:
        line = _line(tree, ("hospitals",))
        raise StudyError(f"{path}:{line}: hospitals.from: {error}.") from None
    return _validated(path, tree, overridden)


def asked_sites(path: Path) -> Listed | None:
    """What a study file says of hospitals that are listed from a table; None where it names each.

    Args:
        path: The YAML file.

    Raises:
        StudyError: The file cannot be read, or what it says is not sound.
    """
    return _asked(path, _tree(path))


def _asked(path: Path, tree: Any) -> Listed | None:
    try:
        return listed(_plain(tree.get("hospitals")))
    except ValidationError as error:
        faults = [{**fault, "loc": ("hospitals", *fault["loc"])} for fault in error.errors()]
        raise StudyError("\n".join(_fault(path, tree, (), fault) for fault in faults)) from None


def _validated(path: Path, tree: Any, overridden: Iterable[tuple[str, ...]]) -> Study:
    try:
        return Study.model_validate(_plain(tree))
    except ValidationError as error:
        faults = [_fault(path, tree, overridden, fault) for fault in error.errors()]
        more = len(faults) - MAX_ERRORS
        tail = [f"... and {more} more"] if more > 0 else []
        raise StudyError("\n".join(faults[:MAX_ERRORS] + tail)) from None


def _names_hospitals(override: str) -> bool:
    """Whether an override replaces all hospitals.

    Raises:
        StudyError: It is of a wish that the list beside the study was made for.
    """
    key = override.partition("=")[0].strip()
    if key in ("hospitals.from", "hospitals.min_rows"):
        raise StudyError(f"--set {override}: {key} is changed in the study's file alone.")
    return key == "hospitals"


def _listed_before(path: Path, asked: Listed) -> HospitalList:
    found = read_list(path)
    if found is None:
        raise ValueError(f"its sites are not listed yet: run `fedrisk study hospitals {path}`")
    if found.asked != asked:
        raise ValueError(
            f"{list_of(path)} was made for another column or min_rows: run `fedrisk study "
            f"hospitals {path}`"
        )
    return found


def _tree(path: Path) -> Any:
    """The content of a study file, with line numbers."""
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise StudyError(
            f"{path}: byte {error.start} is not UTF-8. Save the study file as UTF-8."
        ) from None
    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise StudyError(f"{path}:{line}: not YAML: {error.problem}.") from None
    except YAMLError as error:
        raise StudyError(f"{path}: not YAML: {error}.") from None
    if not isinstance(tree, dict):
        raise StudyError(f"{path}:1: a study is a mapping of keys (name, title, columns, ...).")
    return tree


def _plain(node: Any) -> Any:
    """Convert ruamel's nodes, which have line numbers, to plain values."""
    if isinstance(node, dict):
        return {_key(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    if isinstance(node, bool) or node is None:
        return node
    width = getattr(node, "_width", None) if isinstance(node, ScalarInt) else None
    if width and width > len(str(abs(node))):
        return PaddedNumber(node)
    for plain in (int, float, str):
        if isinstance(node, plain):
            return plain(node)
    return node


def _key(node: Any) -> Any:
    """A key as text; a number with zeros before it stays one, to be refused."""
    plain = _plain(node)
    return plain if isinstance(plain, PaddedNumber) else str(node)


def _override(tree: Any, item: str) -> tuple[str, ...]:
    """Apply an override to the tree and return its key, or the highest key that it created."""
    key, equals, value = item.partition("=")
    keys = tuple(key.strip().split("."))
    if not equals or not all(keys):
        raise StudyError(f"--set {item}: expected path.to.key=value, such as federation.rounds=5.")
    node, made = tree, len(keys)
    for depth, part in enumerate(keys[:-1]):
        if node.get(part) is None:
            node[part] = {}
            made = min(made, depth + 1)
        node = node[part]
        if not isinstance(node, dict):
            raise StudyError(
                f"--set {item}: {'.'.join(keys[: depth + 1])} is a value, not a group of keys."
            )
    try:
        node[keys[-1]] = YAML(typ="safe").load(io.StringIO(value)) if value.strip() else ""
    except YAMLError:
        raise StudyError(f"--set {item}: the value is not YAML; put it in quotes.") from None
    return keys[:made]


def _fault(path: Path, tree: Any, overridden: Iterable[tuple[str, ...]], fault: Any) -> str:
    location = tuple(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = "unknown key; remove it or look at `fedrisk study schema` for the right name"
    elif fault["type"] == "missing":
        message = "this key is required"
    # Pydantic reports a conflict of keys for their group; the message starts with the key.
    first = re.match(r"[\w-]+(\.[\w-]+)*", message) if fault["type"] == "value_error" else None
    place = (*location, *first.group().split(".")) if first else location
    text = f"{'.'.join(location)}: {message}" if location else message
    for keys in overridden:
        if place[: len(keys)] == keys:
            return f"--set {'.'.join(keys)}: {text}."
    return f"{path}:{_line(tree, place)}: {text}."


def _line(tree: Any, location: Sequence[str]) -> int:
    """Line of the deepest key of ``location`` in the file, from 1."""
    line, node = 1, tree
    for part in location:
        if isinstance(node, dict):
            match = next((key for key in node if str(key) == part), None)
            if match is None:
                break
            if isinstance(node, CommentedBase) and match in (getattr(node.lc, "data", None) or {}):
                line = node.lc.key(match)[0] + 1
            node = node[match]
        elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
            if isinstance(node, CommentedBase):
                line = node.lc.item(int(part))[0] + 1
            node = node[int(part)]
        else:
            break
    return line
