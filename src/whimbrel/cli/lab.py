"""`whimbrel lab`: live-migrate a redlined VM by every method and print the table."""

import asyncio
import math
import shlex
import sys
import tomllib
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import typer
from rich.console import Console

from whimbrel.cli import flags
from whimbrel.cli.output import Output
from whimbrel.cli.progress import Terminal
from whimbrel.cli.running import interruptible
from whimbrel.errors import ConfigError, ExitCode, WhimbrelError
from whimbrel.lab import peer_suite
from whimbrel.lab import suite as suite_draws
from whimbrel.lab.accuracy import run_accuracy
from whimbrel.lab.bench import run_lab
from whimbrel.lab.nested.bench import run_nested
from whimbrel.lab.nested.tables import BASE, FLAGS, nested_plan, nested_tables
from whimbrel.lab.peer_suite import run_peers
from whimbrel.lab.plan import plan
from whimbrel.lab.results import exit_code
from whimbrel.lab.scenario import default_scenario, read_scenario_file, scenario_from, scenario_toml
from whimbrel.lab.suite import SEED
from whimbrel.model.scenario import LabResult, Scenario

SUITES = {"accuracy": suite_draws.MINUTES, "peers": peer_suite.MINUTES}
"""What `--suite` knows, and how many minutes each lasts unless told."""

T = TypeVar("T")


def lab(
    scenario: flags.Scenarios = None,
    *,
    quick: flags.Quick = False,
    nested: flags.Nested = False,
    suite: flags.Suite = None,
    minutes: flags.Minutes = None,
    seed: flags.Seed = None,
    methods: flags.Methods = None,
    repeats: flags.Repeats = None,
    memory: flags.Memory = None,
    vcpus: flags.Vcpus = None,
    fill: flags.Fill = None,
    pattern: flags.PatternFlag = None,
    hot: flags.Hot = None,
    dirty_rate: flags.DirtyRate = None,
    access: flags.AccessFlag = None,
    touch: flags.Touch = None,
    freed: flags.Freed = None,
    accelerator: flags.Accelerator = None,
    kernel: flags.KernelFlag = None,
    modules: flags.Modules = None,
    survey: flags.Survey = None,
    link: flags.LinkRate = None,
    links: flags.Links = None,
    limit: flags.Limit = None,
    downtime_limit: flags.DowntimeLimit = None,
    timeout: flags.Timeout = None,
    channels: flags.Channels = None,
    compression: flags.Compression = None,
    xbzrle_cache: flags.XbzrleCache = None,
    prepare_memory: flags.PrepareMemory = None,
    prepare_threads: flags.PrepareThreads = None,
    free_page_hints: flags.FreePageHints = None,
    encrypted: flags.Encrypted = None,
    goal: flags.Goal = None,
    max_downtime: flags.MaxDowntime = None,
    deadline: flags.Deadline = None,
    cpu_budget: flags.CpuBudget = None,
    postcopy: flags.PostcopyFlag = None,
    results: flags.Results = None,
    json: flags.JsonFile = None,
) -> None:
    """Live-migrate a redlined VM by every method, and print start-to-finish times.

    Two hosts are made on this machine, joined by a shaped link; a real guest with redlined
    memory moves between them by each method and verifies every page. Needs root.
    """
    _lab(locals())


def _lab(given: Mapping[str, Any]) -> None:
    """Do what the flags say; `given` holds each by its name."""
    over = flags.given_flags(given)
    files, quick = given["scenario"] or [], given["quick"]
    if given["nested"]:
        scenarios = _nested(given, over)
        _compare(scenarios, Output.prepared(given["results"], given["json"]), nested=True)
        return
    asked = (given["suite"], given["minutes"], given["seed"])
    if any(each is not None for each in asked):
        besides = [*(["scenario"] if files else []), *(["quick"] if quick else []), *over]
        suite = _asked(*asked, besides)
        _play(suite, Output.prepared(given["results"], given["json"]))
    else:
        scenarios = _scenarios(files, over, quick=quick)
        _compare(scenarios, Output.prepared(given["results"], given["json"]))


def _compare(scenarios: Sequence[Scenario], output: Output, *, nested: bool = False) -> None:
    result = _run(scenarios, output, nested=nested)
    output.show(result)
    output.write(result)
    Console(stderr=True).print(f"Results: {output.report}", soft_wrap=True, markup=False)
    code = exit_code(result)
    if code is not ExitCode.DONE:
        raise typer.Exit(code)


def _nested(given: Mapping[str, Any], over: dict[str, Any]) -> Sequence[Scenario]:
    """Return the tables of emulated hosts; raises `ConfigError` for a flag without a meaning."""
    others = ("scenario", "suite", "minutes", "seed", *flags.KEYS)
    refused = [name for name in others if name not in FLAGS and given[name] is not None]
    refused += ["quick"] * given["quick"]
    if refused:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in refused)
        raise ConfigError(
            f"--nested has its own hosts, links and methods: {names} cannot be given as well.",
            "Leave it out, or leave out --nested.",
        )
    return nested_tables(scenario_from(_merged(BASE, over), "command line"))


@dataclass(frozen=True)
class _Asked:
    """What is asked of a suite."""

    suite: str
    minutes: float
    seed: int


def _asked(suite: str | None, minutes: float | None, seed: int | None, given: list[str]) -> _Asked:
    if suite is None:
        raise ConfigError("--minutes and --seed belong to a suite.", "Add --suite accuracy.")
    if suite not in SUITES:
        raise ConfigError(f'There is no suite "{suite}".', f"Known: {', '.join(SUITES)}.")
    if given:
        raise ConfigError(
            f"A suite draws its own guests and links: {', '.join(given)} cannot be given as well.",
            "Leave it out, or leave out --suite.",
        )
    if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
        raise ConfigError(f"--minutes must be more than 0, not {minutes:g}.")
    if seed is not None and seed < 0:
        raise ConfigError(f"--seed must not be less than 0, not {seed}.")
    lasts = SUITES[suite] if minutes is None else minutes
    return _Asked(suite, lasts, SEED if seed is None else seed)


def _play(asked: _Asked, output: Output) -> None:
    if asked.suite == "peers":
        _suite(run_peers, asked, output, output.write_peers, output.show_peers)
    else:
        _suite(run_accuracy, asked, output, output.write_suite, output.show_suite)


class _Found(Protocol):
    """What any suite yields."""

    @property
    def lab(self) -> LabResult:
        """Every run."""


F = TypeVar("F", bound=_Found)


def _suite(
    run: Callable[..., Coroutine[None, None, F]],
    asked: _Asked,
    output: Output,
    write: Callable[[F], None],
    show: Callable[[F], None],
) -> None:
    terminal = Terminal(Console(stderr=True, highlight=False))
    rescued: list[F] = []
    job = run(
        terminal,
        seed=asked.seed,
        minutes=asked.minutes,
        command=_command(),
        rescued=rescued.append,
    )
    try:
        with terminal:
            found = asyncio.run(_interruptible(job, terminal))
    finally:
        for each in rescued:
            write(each)
            runs = sum(len(part.runs) for part in each.lab.scenarios)
            terminal.says(f"Results of {runs} moves: {output.report}")
    show(found)
    write(found)
    Console(stderr=True).print(f"Results: {output.report}", soft_wrap=True, markup=False)
    if any(run.guest and not run.guest.intact for part in found.lab.scenarios for run in part.runs):
        raise typer.Exit(ExitCode.LAB)


def _command() -> str:
    return shlex.join(["whimbrel", *sys.argv[1:]])


def _scenarios(files: list[Path], over: dict[str, Any], *, quick: bool) -> list[Scenario]:
    if files and quick:
        raise ConfigError(
            "--quick and --scenario exclude each other: a scenario says how large its VM is.",
            'Set it with --memory "512 MiB" and --fill "384 MiB".',
        )
    if files:
        return [scenario_from(_merged(read_scenario_file(path), over), str(path)) for path in files]
    base = tomllib.loads(scenario_toml(default_scenario(quick=quick)))
    guest = over.get("guest", {})
    if "memory" in guest or "freed" in guest.get("redline", {}):
        del base["guest"]["redline"]["fill"]  # it belongs to a memory that was shared otherwise
    if "link" in over:
        del base["methods"], base["link"]  # they belong to one NIC
    return [scenario_from(_merged(base, over), "command line")]


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            merged[key] = _merged(below, value)
        else:
            merged[key] = value
    return merged


def _run(scenarios: Sequence[Scenario], output: Output, *, nested: bool) -> LabResult:
    terminal = Terminal(Console(stderr=True, highlight=False))
    planned = sum(len(nested_plan(one) if nested else plan(one)) for one in scenarios)
    with _nothing_lost(planned, terminal, output), terminal:
        if nested:
            job = run_nested(scenarios, terminal, _command())
        else:
            job = run_lab(scenarios, terminal, _command(), past=terminal.past())
        return asyncio.run(_interruptible(job, terminal))


@contextmanager
def _nothing_lost(planned: int, terminal: Terminal, output: Output) -> Iterator[None]:
    """When the lab ends early, write the runs that are over; the reason goes on its way."""
    whole = False
    try:
        yield
        whole = True
    finally:
        if not whole and terminal.so_far is not None:
            _rescue(terminal.so_far, planned, terminal, output)


def _rescue(so_far: LabResult, planned: int, terminal: Terminal, output: Output) -> None:
    over = sum(len(part.runs) for part in so_far.scenarios)
    try:
        output.write(so_far)
    except WhimbrelError as error:  # what ended the lab is the graver one, and is told next
        terminal.says(str(error))
    else:
        terminal.says(f"Results of {over} of {planned} runs: {output.report}")


async def _interruptible(job: Coroutine[None, None, T], terminal: Terminal) -> T:
    """Say that an interrupted lab is gone: what it made is removed first."""
    try:
        return await interruptible(job)
    except KeyboardInterrupt:
        terminal.says("Interrupted: everything the lab made has been removed.")
        raise
