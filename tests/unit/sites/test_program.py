"""What every part of the program that is sent to hosts keeps to."""

import ast
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from whimbrel.sites import program

ONSITE = Path(program.__file__).parent / "onsite"
PARTS = sorted(path for path in ONSITE.glob("*.py") if path.name != "__init__.py")
TOO_NEW = {"tomllib"}
"""Modules that Python 3.9 does not have."""


def each_part() -> dict[str, ModuleType]:
    """Load the parts from their text, as a host does."""
    found = {}
    for name, text in json.loads(program.text()):
        module = ModuleType(name)
        exec(compile(text, name, "exec"), module.__dict__)  # noqa: S102 - it is our own text
        found[name] = module
    return found


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.stem)
def test_a_part_needs_the_standard_library_of_python_3_9_only(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    for part in ast.walk(tree):
        names = []
        if isinstance(part, ast.Import):
            names = [alias.name for alias in part.names]
        elif isinstance(part, ast.ImportFrom):
            assert part.level == 0
            names = [part.module or ""]
        elif isinstance(part, ast.Call):
            function = getattr(part.func, "id", "")
            assert function != "zip" or not part.keywords, "zip has no strict= in Python 3.9"
        roots = {name.partition(".")[0] for name in names}
        assert roots <= sys.stdlib_module_names - TOO_NEW


@pytest.mark.parametrize("path", PARTS, ids=lambda path: path.stem)
def test_annotations_are_not_evaluated_since_python_3_9_cannot(path: Path) -> None:
    assert "from __future__ import annotations\n" in path.read_text()


def test_no_question_is_answered_by_two_parts() -> None:
    parts = each_part()
    names = [name for part in parts.values() for name in getattr(part, "QUESTIONS", {})]
    assert len(names) == len(set(names))
    assert next(iter(parts)) == "serve"
