"""The documents name every flag and every exit code, and their examples can be used."""

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from typer.main import get_command

from whimbrel.cli import flags
from whimbrel.cli.exits import EXIT_CODES
from whimbrel.cli.main import program
from whimbrel.config import load, load_vm
from whimbrel.config.keys import HostKeys, LinkKeys, PolicyKeys
from whimbrel.config.vm_keys import DiskKeys, NicKeys, VmKeys
from whimbrel.errors import ExitCode
from whimbrel.lab.scenario import read_scenario_file, scenario_from
from whimbrel.model.method import Method
from whimbrel.model.units import parse_time

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
CLI = (DOCS / "cli.md").read_text(encoding="utf-8")
CONFIG = (DOCS / "config.md").read_text(encoding="utf-8")
RECIPES = DOCS / "howto" / "lab.md"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

FLAG = re.compile(r"--[a-z][a-z-]*")
MORE_FLAGS = {"--version", "--help", "--install-completion", "--show-completion"}


def commands() -> dict[str, Any]:
    """Return every command by its words, those of a group too: "lab", "schedule add"."""
    found: dict[str, Any] = {}

    def add(command: Any, words: tuple[str, ...]) -> None:
        for name, below in getattr(command, "commands", {"": None}).items():
            if below is None:
                found[" ".join(words)] = command
            else:
                add(below, (*words, name))

    add(get_command(program()), ())
    return found


def flags_of(command: Any) -> dict[str, str]:
    """Return every flag of a command, off-switches too, with the name of its parameter."""
    return {
        flag: str(option.name)
        for option in command.params
        for flag in (*option.opts, *option.secondary_opts)
        if flag.startswith("--")
    }


def known_flags() -> dict[str, str]:
    """Return every flag of the lab."""
    return flags_of(commands()["lab"])


def section(name: str) -> str:
    """Return what the page says of a command; empty: nothing."""
    found = re.search(rf"^## whimbrel {name}$(.*?)(?=^## |\Z)", CLI, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def documented_rows() -> dict[str, str]:
    """Return the flags of the lab's tables, each with the key beside it (empty: none)."""
    rows = re.findall(r"^\| (`--[^|]*`) \| (?:`([^`|]*)`)? ?\|", section("lab"), re.MULTILINE)
    return {flag: key for cell, key in rows for flag in FLAG.findall(cell)}


def lab_commands(page: Path) -> list[str]:
    """Return the lab's command lines in a page's indented examples, continuations joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(r"^ {4}(?:sudo )?(?:\./run|whimbrel) lab\b.*$", text, re.MULTILINE)


def test_the_page_has_a_row_for_every_flag_and_no_other() -> None:
    assert documented_rows().keys() == known_flags().keys()


def test_each_flag_stands_beside_the_key_it_stands_for() -> None:
    rows = documented_rows()
    for flag, name in known_flags().items():
        assert rows[flag] == flags.KEYS.get(name, ""), flag


def test_the_page_names_no_flag_that_is_not_there() -> None:
    known = {flag for command in commands().values() for flag in flags_of(command)}
    assert set(FLAG.findall(CLI)) <= known | MORE_FLAGS


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_flag_of_a_command_stands_in_its_section(name: str) -> None:
    words = name.split()
    told = section(name) or section(words[0])
    assert told, f"docs/cli.md has no section: ## whimbrel {name}"
    assert flags_of(commands()[name]).keys() - MORE_FLAGS <= set(FLAG.findall(told))


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_help_page_ends_with_the_exit_codes(name: str) -> None:
    assert commands()[name].epilog == EXIT_CODES


def rows_of(text: str) -> dict[str, str]:
    """Return the first two cells of every table row that begins with a key."""
    return dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", text, re.MULTILINE))


@pytest.mark.parametrize(
    ("heading", "table"),
    [
        ("### `[hosts.NAME]`", HostKeys),
        ("### `[[hosts.NAME.links]]`", LinkKeys),
        ("### `[policy]`", PolicyKeys),
        ("## A VM's file", VmKeys),
        ("### `[[disks]]`", DiskKeys),
        ("### `[[nics]]`", NicKeys),
    ],
)
def test_every_key_of_a_file_has_its_row_with_its_default(
    heading: str, table: type[BaseModel]
) -> None:
    part = CONFIG.partition(f"{heading}\n")[2].partition("\n#")[0]
    rows = rows_of(part)
    below = {name for name, field in table.model_fields.items() if field.default == []}
    assert table.model_fields.keys() - below <= rows.keys() <= table.model_fields.keys()
    for name, default in rows.items():
        assert (default == "must be given") == table.model_fields[name].is_required(), name
        value = table.model_fields[name].default
        if default.startswith("`") and "from" not in default and "," not in default:
            written = json.loads(default.strip("`"))
            assert written in {value, str(value), "none"} or parse_time(written) == value, name


def test_the_examples_of_files_can_be_used(tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", CONFIG, re.MULTILINE | re.DOTALL)
    hosts, vm = (tmp_path / name for name in ("whimbrel.toml", "vm.toml"))
    hosts.write_text(blocks[0])
    vm.write_text(blocks[1])
    assert list(load(hosts).hosts) == ["a", "b"]
    assert load_vm(vm).name == "web"


def test_the_page_has_a_row_for_every_exit_code_and_no_other() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", CLI, re.MULTILINE)
    assert {name: int(code) for code, name in rows} == {c.name: c.value for c in ExitCode}


def test_the_help_tells_every_exit_code_in_the_pages_words() -> None:
    told = dict(re.findall(r"(\d+) ([^·]+?)(?: ·|$)", " ".join(EXIT_CODES.split())))
    page = dict(re.findall(r"^\| (\d+) \| `\w+` \| ([^|]*) \|", CLI, re.MULTILINE))
    assert told == page


def test_completion_can_be_had_at_the_top_and_only_there() -> None:
    top = {flag for option in get_command(program()).params for flag in option.opts}
    assert {"--install-completion", "--show-completion"} <= top
    assert not any("completion" in flag for flag in known_flags())


def test_the_page_describes_every_method_as_the_help_does() -> None:
    for method in Method:
        assert f"| `{method}` | {method.description} |" in CLI


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_use_flags_that_are_there(page: Path) -> None:
    for command in lab_commands(page):
        assert set(FLAG.findall(command)) <= known_flags().keys(), command
        assert shlex.split(command), command


def test_the_recipes_hold_examples() -> None:
    assert len(lab_commands(RECIPES)) > 10


def test_scenarios_in_the_recipes_can_be_run() -> None:
    text = RECIPES.read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        scenario_from(tomllib.loads(block), "lab.md")


def test_scenario_files_named_in_the_documents_exist_and_can_be_run() -> None:
    named = {
        path for page in PAGES for path in re.findall(r"scenarios/[\w-]+\.toml", page.read_text())
    }
    assert named
    for path in named:
        scenario_from(read_scenario_file(ROOT / path), path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), f"{page.name}: {link}"
