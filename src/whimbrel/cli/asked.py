"""What a person asks of one move: the options that `plan` and `move` share, and their meaning.

    flags ──► Asked ─┬─ with the config's policy and both hosts' limits ──► Wish, Settings
                     └─ storage, encryption, survey

A flag wins over the config; a host's own limits hold whatever is asked. An option is written
once, as a field of `Asked`; `asks` gives all of them to a command.
"""

from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields
from enum import StrEnum
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_type_hints

import typer

from whimbrel.cli.options import VmName, complete_hosts
from whimbrel.config import Config
from whimbrel.errors import ConfigError
from whimbrel.model.inventory import Host
from whimbrel.model.method import (
    Method,
    Postcopy,
    PreparedMemory,
    Settings,
    Transport,
    Tuning,
    rdma_refusal,
)
from whimbrel.model.plan import Goal, Wish
from whimbrel.model.policy import LONGEST_DOWNTIME, Encryption
from whimbrel.model.storage import Extent
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
    str,
    typer.Option(
        "--to",
        help="The host it shall run on; without it only the disks move (--storage).",
        metavar="HOST",
        autocompletion=complete_hosts,
        show_default=False,
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
        "share need none. A disk with backing files arrives as one image, unless --chain top.",
        metavar="PATH",
    ),
]
ChainOption = Annotated[
    Extent,
    typer.Option(
        "--chain",
        help="With --storage, of a disk with backing files: copy the whole chain into one image, "
        "or the top image only, where its backing files are at the same path there.",
    ),
]
RemoveSource = Annotated[
    bool,
    typer.Option(
        "--remove-source", help="Remove the source's images when the VM has arrived with its disks."
    ),
]
PinAll = Annotated[
    bool,
    typer.Option("--pin-all", help="By RDMA, pin all of the guest's memory before the first page."),
]
ZeroCopy = Annotated[
    bool,
    typer.Option(
        "--zero-copy",
        help="By several channels, send pages without copying them in the source's kernel.",
    ),
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
        to: The destination's name; empty: only disks move.
        method: How to move it.
        goal: What shall be small.
        max_downtime: As written.
        deadline: As written.
        limit: As written.
        leave: As written.
        cpu_budget: Cores.
        channels: Streams.
        pin_all: Whether RDMA pins all memory beforehand.
        zero_copy: Whether channels send pages without copying them.
        postcopy: Whether the guest may move before its memory.
        storage: Where the disks go; empty or None: they are shared.
        chain: How much of each disk's backing chain is copied.
        remove_source: Whether images that were copied are removed at the source afterwards.
        survey: How deep to look.
        encryption: Whether what is sent is encrypted.
        prepare_network: Whether MPTCP is set up on both hosts for as long as it takes.
    """

    vm: VmName
    to: ToOrStay = ""
    method: MethodOption = Method.AUTO
    goal: GoalOption = None
    max_downtime: MaxDowntime = None
    deadline: Deadline = None
    limit: Limit = None
    leave: LeaveOption = None
    cpu_budget: CpuBudget = None
    channels: Channels = None
    pin_all: PinAll = False
    zero_copy: ZeroCopy = False
    postcopy: PostcopyOption = None
    storage: StorageOption = None
    chain: ChainOption = Extent.WHOLE
    remove_source: RemoveSource = False
    survey: SurveyOption = Looking.DEFAULT
    encryption: EncryptionOption = None
    prepare_network: PrepareNetwork = False

    def check(self) -> None:
        """Raise `ConfigError` for what cannot be meant, before any host is asked."""
        if self.chain is not Extent.WHOLE and not self.storage:
            raise ConfigError(
                "--chain says how disks are copied, and none is.", "Add --storage PATH."
            )
        self._check_rdma()
        if self.zero_copy and self.method not in {Method.AUTO, Method.MULTICHANNEL}:
            raise ConfigError(
                "--zero-copy is for several channels, neither compressed nor encrypted, and "
                f"{self.method} is something else.",
                f"Leave it out, or: --method {Method.MULTICHANNEL}",
            )
        if self.limit is not None:
            parse_rate(self.limit)
        if self.leave is not None:
            parse_share(self.leave)
        if self.deadline is not None and parse_time(self.deadline) <= 0:
            raise ConfigError(
                f"A deadline of {self.deadline} is over before the move begins.",
                'Say how long it may take from the request on: --deadline "10 min".',
            )
        if self.max_downtime is not None:
            wanted = parse_time(self.max_downtime)
            if not SHORTEST <= wanted <= LONGEST_DOWNTIME:
                raise ConfigError(
                    f"A downtime of {self.max_downtime} cannot be asked for.",
                    f"QEMU takes 1 ms to {LONGEST_DOWNTIME:.0f} s.",
                )

    def _check_rdma(self) -> None:
        if self.method is not Method.RDMA:
            if self.pin_all and self.method is not Method.AUTO:
                raise ConfigError(
                    f"--pin-all is for RDMA; {self.method} pins nothing.",
                    "Leave it out, or move by RDMA: --method rdma",
                )
            return
        asked = Tuning(
            transport=Transport.RDMA,
            channels=self.channels,
            postcopy=Postcopy.IF_STALLED if self.postcopy else Postcopy.NEVER,
            multipath=self.prepare_network,
        )
        refusal = rdma_refusal(asked)
        if refusal is not None:
            raise ConfigError(*refusal)


def asks(**instead: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command every option of `Asked`; what they say is its first argument.

    Args:
        instead: Fields that are another option in this command, one that must be given; None
            leaves a field out.
    """
    hints = get_type_hints(Asked, include_extras=True) | instead
    shared = [
        Parameter(
            each.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if each.name in instead else _default(each),
            annotation=hints[each.name],
        )
        for each in fields(Asked)
        if hints[each.name] is not None
    ]

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        _, *own = signature(command).parameters.values()

        @wraps(command)
        def called(**given: Any) -> None:
            asked = Asked(**{each.name: given.pop(each.name) for each in shared})
            command(asked, **given)

        # It is what typer reads the options from.
        vars(called)["__signature__"] = Signature([*shared, *own])
        return called

    return decorated


def _default(field: Field[Any]) -> Any:
    return Parameter.empty if field.default is MISSING else field.default


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
        zero_copy=asked.zero_copy,
    )


def _least(*limits: float | None) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)
