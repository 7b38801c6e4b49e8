"""The program: commands, and the one place where every error becomes a message and a code.

A command's module is loaded when the command is called, so that `whimbrel vms` need not load the
lab; help and completion load them all.
"""

import sys
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from whimbrel.cli.exits import EXIT_CODES
from whimbrel.errors import ExitCode, WhimbrelError

COMMANDS = {
    "config": "config.config",
    "hosts": "hosts.hosts",
    "vms": "vms.vms",
    "up": "up.up",
    "down": "down.down",
    "console": "console.console",
    "plan": "plan.plan",
    "move": "move.move",
    "watch": "watch.watch",
    "recover": "recover.recovering",
    "lab": "lab.lab",
    "history": "history.history",
    "report": "report.report",
    "schedule": "schedule.schedule",
    "scheduler": "scheduler.scheduler",
}
"""Each command's module under whimbrel.cli, and its function or group there."""

BESIDE = {"schedule": ("move",)}
"""Commands that a command looks at: a schedule takes what a move would."""


def program(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """Return the program with these commands."""
    made = typer.Typer(
        name="whimbrel",
        help="Move running virtual machines between hosts without stopping them.",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(whimbrel)
    for name in names:
        module, _, part = COMMANDS[name].partition(".")
        found = getattr(import_module(f"whimbrel.cli.{module}"), part)
        if isinstance(found, typer.Typer):
            made.add_typer(found, name=name)
        else:
            made.command(name=name, epilog=EXIT_CODES)(found)
    return made


def called(words: Iterable[str]) -> Iterable[str]:
    """Return the commands that a command line needs: the one it names, or all of them."""
    first = next((word for word in words if not word.startswith("-")), "")
    return (first, *BESIDE.get(first, ())) if first in COMMANDS else COMMANDS


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"whimbrel {version('whimbrel')}")
        raise typer.Exit


def whimbrel(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Move running virtual machines between hosts without stopping them."""


def main() -> None:
    """Run the command line and exit with the code of errors.py."""
    sys.exit(_run())


def _run() -> int:
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        program(called(sys.argv[1:]))(prog_name="whimbrel", standalone_mode=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.BUG
    except KeyboardInterrupt:
        errors.print("Interrupted.")
        return ExitCode.INTERRUPTED
    except WhimbrelError as error:
        errors.print(f"[bold red]{escape(error.what)}[/]")
        if error.hint:
            errors.print(escape(error.hint))
        return error.exit_code
    except Exception:  # noqa: BLE001 - the last resort: our own bug, said as such
        errors.print_exception()
        errors.print("This is a bug in whimbrel.")
        return ExitCode.BUG
    return ExitCode.DONE
