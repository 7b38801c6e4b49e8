"""What a person asks of one move: the options that `plan` and `move` share, and their meaning.

    flags ──► Asked ─┬─ with the config's policy and both hosts' limits ──► Wish, Settings
                     └─ storage, encryption, survey

A flag wins over the config; a host's own limits hold whatever is asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from whimbrel.cli.options import complete_hosts
from whimbrel.config import Config
from whimbrel.errors import ConfigError
from whimbrel.model.inventory import Host
from whimbrel.model.method import Method, PreparedMemory, Settings
from whimbrel.model.plan import Goal, Wish
from whimbrel.model.policy import LONGEST_DOWNTIME, Encryption
from whimbrel.model.units import parse_rate, parse_time
from whimbrel.theory.candidates import SHORTEST
from whimbrel.theory.sharing import parse_share

NO_DEADLINE = 3600.0
"""Seconds that a move is given where nobody says: what is not there by then never will be."""


class Looking(StrEnum):
    """How deep to survey; `none` forgoes forecast and choice."""

    NONE = "none"
    QUICK = "quick"
    DEFAULT = "default"
    DEEP = "deep"


ToOrStay = Annotated[
    str | None,
    typer.Option(
        "--to",
        help="The host it shall run on; without it only the disks move (--storage).",
        metavar="HOST",
        autocompletion=complete_hosts,
    ),
]
To = Annotated[
    str,
    typer.Option(
        "--to", help="The host it shall run on.", metavar="HOST", autocompletion=complete_hosts
    ),
]
MethodOption = Annotated[
    Method, typer.Option("--method", help="How; auto weighs all and takes the best.")
]
GoalOption = Annotated[Goal | None, typer.Option("--goal", help="What shall be small.")]
MaxDowntime = Annotated[
    str | None,
    typer.Option(help='How long the guest may stand still: "500 ms".', metavar="TIME"),
]
Deadline = Annotated[
    str | None,
    typer.Option(help='When it must be over, from the request: "10 min".', metavar="TIME"),
]
Limit = Annotated[
    str | None, typer.Option(help='The most it may send: "400 Mbit/s".', metavar="RATE")
]
LeaveOption = Annotated[
    str | None,
    typer.Option("--leave", help='The share of the NIC that stays for others: "30%".'),
]
CpuBudget = Annotated[
    float | None,
    typer.Option(help="Cores it may keep busy on each host.", min=0.1, metavar="CORES"),
]
Channels = Annotated[
    int | None,
    typer.Option(help="Streams of the methods that use several.", min=1, max=255, metavar="N"),
]
PostcopyOption = Annotated[
    bool | None,
    typer.Option("--postcopy/--no-postcopy", help="Whether the guest may move before its memory."),
]
StorageOption = Annotated[
    list[str] | None,
    typer.Option(
        "--storage",
        help="Copy the disks too: to a folder there, or DISK=PATH for each. Disks that both hosts "
        "share need none.",
        metavar="PATH",
    ),
]
PinAll = Annotated[
    bool,
    typer.Option("--pin-all", help="By RDMA, pin all of the guest's memory before the first page."),
]
SurveyOption = Annotated[Looking, typer.Option("--survey", help="How deep to look beforehand.")]
PrepareNetwork = Annotated[
    bool,
    typer.Option(
        "--prepare-network",
        help="Set both hosts up for several NICs (MPTCP), and take it back afterwards.",
    ),
]
EncryptionOption = Annotated[
    Encryption | None, typer.Option("--encryption", help="Whether what is sent is encrypted.")
]


@dataclass(frozen=True)
class Asked:
    """What the flags say; None: nothing.

    Attributes:
        vm: The VM's name.
        to: The destination's name.
        method: How to move it.
        goal: What shall be small.
        max_downtime: As written.
        deadline: As written.
        limit: As written.
        leave: As written.
        cpu_budget: Cores.
        channels: Streams.
        postcopy: Whether the guest may move before its memory.
        survey: How deep to look.
        encryption: Whether what is sent is encrypted.
        storage: Where the disks go; empty: they are shared.
        remove_source: Whether images that were copied are removed at the source afterwards.
        pin_all: Whether RDMA pins all memory beforehand.
        prepare_network: Whether MPTCP is set up on both hosts for as long as it takes.
    """

    vm: str
    to: str
    method: Method = Method.AUTO
    goal: Goal | None = None
    max_downtime: str | None = None
    deadline: str | None = None
    limit: str | None = None
    leave: str | None = None
    cpu_budget: float | None = None
    channels: int | None = None
    postcopy: bool | None = None
    survey: Looking = Looking.DEFAULT
    encryption: Encryption | None = None
    storage: Sequence[str] = ()
    remove_source: bool = False
    pin_all: bool = False
    prepare_network: bool = False

    def check(self) -> None:
        """Raise `ConfigError` for what cannot be meant, before any host is asked."""
        if self.limit is not None:
            parse_rate(self.limit)
        if self.leave is not None:
            parse_share(self.leave)
        if self.deadline is not None and parse_time(self.deadline) <= 0:
            raise ConfigError("A deadline lies in the future.")
        if self.max_downtime is not None:
            wanted = parse_time(self.max_downtime)
            if not SHORTEST <= wanted <= LONGEST_DOWNTIME:
                raise ConfigError(
                    f"A downtime of {self.max_downtime} cannot be asked for.",
                    f"QEMU takes 1 ms to {LONGEST_DOWNTIME:.0f} s.",
                )


def wish_of(
    asked: Asked,
    config: Config,
    source: Host,
    destination: Host,
    shared: float | None = None,
) -> Wish:
    """Return what is wanted of the move, and how far it may go.

    `shared` is what others leave of the link, bytes per second.
    """
    policy = config.policy
    deadline = policy.deadline if asked.deadline is None else parse_time(asked.deadline)
    downtime = asked.max_downtime
    return Wish(
        total_time=NO_DEADLINE if deadline is None else deadline,
        downtime=policy.max_downtime if downtime is None else parse_time(downtime),
        goal=policy.goal if asked.goal is None else asked.goal,
        postcopy=policy.postcopy if asked.postcopy is None else asked.postcopy,
        cpu_budget=_least(asked.cpu_budget, source.cpu_budget, destination.cpu_budget),
        bandwidth_limit=_least(
            None if asked.limit is None else parse_rate(asked.limit),
            source.bandwidth_limit,
            destination.bandwidth_limit,
            shared,
        ),
    )


def settings_of(asked: Asked, wish: Wish, *, encrypted: bool) -> Settings:
    """Return what holds for every method that is weighed."""
    plain = Settings(downtime_limit=min(Settings().downtime_limit, wish.downtime))
    threads = PreparedMemory().threads
    return Settings(
        channels=asked.channels or plain.channels,
        bandwidth_limit=wish.bandwidth_limit,
        downtime_limit=plain.downtime_limit,
        prepared_memory=PreparedMemory(threads),
        encrypted=encrypted,
        pin_all=asked.pin_all,
    )


def _least(*limits: float | None) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)
