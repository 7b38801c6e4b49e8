"""The program: commands, and the one place where every error becomes a message and a code."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from whimbrel.cli.config import config
from whimbrel.cli.console import console
from whimbrel.cli.down import down
from whimbrel.cli.exits import EXIT_CODES
from whimbrel.cli.history import history
from whimbrel.cli.hosts import hosts
from whimbrel.cli.lab import lab
from whimbrel.cli.move import move
from whimbrel.cli.plan import plan
from whimbrel.cli.recover import recovering
from whimbrel.cli.report import report
from whimbrel.cli.schedule import schedule
from whimbrel.cli.scheduler import scheduler
from whimbrel.cli.up import up
from whimbrel.cli.vms import vms
from whimbrel.cli.watch import watch
from whimbrel.errors import ExitCode, WhimbrelError

app = typer.Typer(
    name="whimbrel",
    help="Move running virtual machines between hosts without stopping them.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(name="config", epilog=EXIT_CODES)(config)
app.command(name="hosts", epilog=EXIT_CODES)(hosts)
app.command(name="vms", epilog=EXIT_CODES)(vms)
app.command(name="up", epilog=EXIT_CODES)(up)
app.command(name="down", epilog=EXIT_CODES)(down)
app.command(name="console", epilog=EXIT_CODES)(console)
app.command(name="plan", epilog=EXIT_CODES)(plan)
app.command(name="move", epilog=EXIT_CODES)(move)
app.command(name="watch", epilog=EXIT_CODES)(watch)
app.command(name="recover", epilog=EXIT_CODES)(recovering)
app.command(name="lab", epilog=EXIT_CODES)(lab)
app.command(name="history", epilog=EXIT_CODES)(history)
app.command(name="report", epilog=EXIT_CODES)(report)
app.add_typer(schedule, name="schedule")
app.command(name="scheduler", epilog=EXIT_CODES)(scheduler)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"whimbrel {version('whimbrel')}")
        raise typer.Exit


@app.callback()
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
        app(prog_name="whimbrel", standalone_mode=True)
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
