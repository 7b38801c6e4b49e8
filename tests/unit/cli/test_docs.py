"""The documents name every flag and every exit code, and their examples can be used."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from whimbrel.cli import flags
from whimbrel.cli.exits import EXIT_CODES
from whimbrel.cli.main import app
from whimbrel.errors import ExitCode
from whimbrel.lab.scenario import read_scenario_file, scenario_from
from whimbrel.model.method import Method

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
CLI = (DOCS / "cli.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]

FLAG = re.compile(r"--[a-z][a-z-]*")
MORE_FLAGS = {"--version", "--help", "--install-completion", "--show-completion"}


def known_flags() -> dict[str, str]:
    """Return every flag of the lab, off-switches too, with the name of its parameter."""
    lab = get_command(app).commands["lab"]  # type: ignore[attr-defined] # a group
    return {
        flag: str(option.name)
        for option in lab.params
        for flag in (*option.opts, *option.secondary_opts)
    }


def documented_rows() -> dict[str, str]:
    """Return the flags of the page's tables, each with the key beside it (empty: none)."""
    rows = re.findall(r"^\| (`--[^|]*`) \| (?:`([^`|]*)`)? ?\|", CLI, re.MULTILINE)
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
    assert set(FLAG.findall(CLI)) <= known_flags().keys() | MORE_FLAGS


def test_the_page_has_a_row_for_every_exit_code_and_no_other() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", CLI, re.MULTILINE)
    assert {name: int(code) for code, name in rows} == {c.name: c.value for c in ExitCode}


def test_the_help_tells_every_exit_code_in_the_pages_words() -> None:
    told = dict(re.findall(r"(\d+) ([^·]+?)(?: ·|$)", " ".join(EXIT_CODES.split())))
    page = dict(re.findall(r"^\| (\d+) \| `\w+` \| ([^|]*) \|", CLI, re.MULTILINE))
    assert told == page


def test_completion_can_be_had_at_the_top_and_only_there() -> None:
    top = {flag for option in get_command(app).params for flag in option.opts}
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
    assert len(lab_commands(DOCS / "howto.md")) > 10


def test_scenarios_in_the_recipes_can_be_run() -> None:
    text = (DOCS / "howto.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        scenario_from(tomllib.loads(block), "howto.md")


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
