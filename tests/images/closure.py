"""Which libraries the steps of a role import, at once or in a function, and which are missing.

Sent into a container on standard input, with the modules to begin with in ``BEGIN``.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from pathlib import Path

BEGIN: list[str] = []


def is_module(name: str) -> bool:
    """Whether there is such a module, and not only a thing of that name in a module."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def modules_of(name: str) -> set[str]:
    """What a module of the project imports."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(name)
    names: set[str] = set()
    for node in ast.walk(ast.parse(Path(found.origin).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if node.module.startswith("tasks") and is_module(inner):
                    names.add(inner)
    return names


def missing(begin: list[str]) -> dict[str, list[str]]:
    """Libraries that are not installed, each with the modules that import it."""
    waiting, seen, absent = list(begin), set(), {}
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for other in modules_of(name):
            top = other.split(".")[0]
            if top == "tasks":
                waiting.append(other)
            elif top not in sys.stdlib_module_names and not importlib.util.find_spec(top):
                absent.setdefault(top, []).append(name)
    return {top: sorted(names) for top, names in absent.items()}


if __name__ == "__main__":
    print(json.dumps(missing(BEGIN)))
