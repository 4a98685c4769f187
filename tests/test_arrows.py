"""The one direction: `curate` imports the three siblings; they import neither it nor one another."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
SIBLINGS = ("labelers", "filters", "student")
OURS = {"curate", *SIBLINGS}
#: Libraries that take a second or more to import, and are loaded where they are used.
HEAVY = {
    "torch",
    "transformers",
    "datasets",
    "sklearn",
    "sentence_transformers",
    "polars",
    "openai",
    "onnx",
    "xllamacpp",
    "vllm",
    "ray",
}


def imported_by(path: Path) -> set[str]:
    """The packages that a file imports anywhere in it, for type checking too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0] if not node.level else path.parent.name)
        elif isinstance(node, ast.Call) and node.args:
            # importlib.import_module("...") and __import__("...")
            function = getattr(node.func, "attr", getattr(node.func, "id", ""))
            named = node.args[0]
            if function in ("import_module", "__import__") and isinstance(named, ast.Constant):
                found.add(str(named.value).split(".")[0])
    return found


def loaded_by(code: str) -> set[str]:
    """The packages in memory after a new interpreter has run ``code``."""
    show = "import sys; print('loaded', *{name.split('.')[0] for name in sys.modules})"
    run = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(run.stdout.strip().splitlines()[-1].split()[1:])


@pytest.mark.parametrize("package", SIBLINGS)
def test_no_file_of_a_sibling_imports_the_face_or_another_sibling(package: str) -> None:
    files = sorted((REPO / package).rglob("*.py"))
    assert files
    strays = {
        str(path.relative_to(REPO)): sorted(others)
        for path in files
        if (others := imported_by(path) & (OURS - {package}))
    }
    assert strays == {}


@pytest.mark.parametrize("package", SIBLINGS)
def test_importing_a_sibling_loads_no_other_and_nothing_heavy(package: str) -> None:
    loaded = loaded_by(f"import {package}")
    assert package in loaded
    assert loaded & (OURS - {package}) == set()
    assert loaded & HEAVY == set()


def test_all_siblings_together_load_neither_the_face_nor_anything_heavy() -> None:
    loaded = loaded_by("import labelers, filters, student")
    assert loaded & (HEAVY | {"curate"}) == set()


def test_help_answers_without_loading_anything_heavy() -> None:
    code = (
        "import sys; from curate.cli import main\n"
        "sys.argv = ['curate', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    loaded = loaded_by(code)
    assert loaded & (HEAVY | {"pandas"}) == set()
    assert "click" in loaded
