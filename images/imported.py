"""Copy a program with the project's modules that it imports, and no others.

Runs while an image is built. What is fetched into a layer depends on these files alone, so a change
elsewhere in the code leaves the layer in the builder's cache.
"""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path


def names_in(source: str) -> set[str]:
    """What may be a module in a file: all that it imports, and its strings (``python -m NAME``)."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names.add(node.value)
    return names


def imported(root: Path, program: Path) -> set[Path]:
    """The files below a folder that a program reaches, packages' ``__init__.py`` included.

    Args:
        root: The folder, which holds the packages.
        program: The program, or a module of a package.
    """
    found: set[Path] = set()
    waiting = [program]
    while waiting:
        for name in names_in(waiting.pop().read_text(encoding="utf-8")):
            if not all(part.isidentifier() for part in name.split(".")):
                continue
            module = root.joinpath(*name.split("."))
            packages = [folder for folder in (module, *module.parents) if root in folder.parents]
            files = [module.with_suffix(".py"), *(each / "__init__.py" for each in packages)]
            new = {file for file in files if file.is_file()} - found
            found |= new
            waiting += new
    return found


def main(root: Path, program: Path, target: Path) -> None:
    """Copy the program to the top of a folder, and the modules beside it.

    Args:
        root: The folder that holds the packages.
        program: The program.
        target: The folder to make.
    """
    for file in sorted(imported(root, program)):
        copy = target / file.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    shutil.copyfile(program, target / program.name)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
