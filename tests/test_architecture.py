"""The house's import rule (docs/architecture.md): imports run down the list only."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "whimbrel"

# From the top floor to the ground; rooms on one floor are strangers to each other.
FLOORS = [
    {"__init__", "__main__"},
    {"cli", "web"},
    {"lab", "schedule"},
    {"practice", "hypervisors", "sites", "report", "store", "config"},
    {"theory"},
    {"ports"},
    {"model"},
    {"errors"},
]

PURE = {"model", "theory", "report"}
WORLDLY = {"time", "random", "logging", "socket", "subprocess", "asyncio", "os", "secrets"}
ONE_FILE_ONLY = {
    "libvirt": "hypervisors/libvirt/connection.py",
    "qemu": "hypervisors/qemu/monitor.py",
    "pyroute2": "lab/links.py",
    "asyncssh": "sites/ssh.py",
    "apscheduler": "schedule/clock.py",
    "tzlocal": "schedule/clock.py",
}
MODEL_MAY_IMPORT = {"whimbrel", *sys.stdlib_module_names}

LONGEST_FUNCTION = 60
LONGEST_MODULE = 400


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for part in ast.walk(ast.parse(path.read_text())):
        if isinstance(part, ast.Import):
            yield from (alias.name for alias in part.names)
        elif isinstance(part, ast.ImportFrom):
            assert part.level == 0, f"{path}: relative import"
            if part.module == "whimbrel":
                yield from (f"whimbrel.{alias.name}" for alias in part.names)
            else:
                yield part.module or ""


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def floor(name: str) -> int:
    [level] = [level for level, rooms in enumerate(FLOORS) if name in rooms]
    return level


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_down_the_list_only(path: Path) -> None:
    here = room(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "whimbrel" or len(parts) == 1 or parts[1] == here:
            continue
        assert floor(parts[1]) > floor(here), f"{here} may not import {name}"


def test_practice_never_imports_an_adapter_and_adapters_are_strangers() -> None:
    for path in modules():
        parts = path.relative_to(PACKAGE).parts
        if parts[0] != "hypervisors" or len(parts) < 3:
            continue
        for name in imports(path):
            words = name.split(".")
            if words[:2] == ["whimbrel", "hypervisors"] and len(words) > 2:
                assert words[2] == parts[1], f"{path} imports the adapter {name}"


def test_each_border_is_crossed_in_one_file() -> None:
    for path in modules():
        for name in imports(path):
            allowed = ONE_FILE_ONLY.get(name.split(".")[0])
            here = str(path.relative_to(PACKAGE))
            assert allowed in {None, here}, f"{here} imports {name}; only {allowed} may"


def test_the_pure_rooms_touch_no_clock_no_chance_and_no_world() -> None:
    for path in modules():
        if room(path) not in PURE:
            continue
        touched = {name.split(".")[0] for name in imports(path)} & WORLDLY
        assert not touched, f"{path.relative_to(PACKAGE)} imports {touched}"


def test_the_model_needs_the_standard_library_only() -> None:
    for path in modules():
        if room(path) in {"model", "errors", "ports"}:
            foreign = {name.split(".")[0] for name in imports(path)} - MODEL_MAY_IMPORT
            assert not foreign, f"{path.relative_to(PACKAGE)} imports {foreign}"


def test_functions_and_modules_stay_short() -> None:
    for path in modules():
        text = path.read_text()
        assert text.count("\n") <= LONGEST_MODULE, f"{path} is too long"
        for part in ast.walk(ast.parse(text)):
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (part.end_lineno or 0) - part.lineno + 1
                assert lines <= LONGEST_FUNCTION, f"{path}: {part.name} has {lines} lines"


def test_every_module_says_its_purpose() -> None:
    for path in modules():
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"
