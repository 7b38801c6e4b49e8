"""The flags of `whimbrel lab`, each with the scenario key it stands for.

flag ──► key of a scenario file ──► lab.scenario: one reader, one set of complaints
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from whimbrel.model.method import Method

_METHODS = 'Methods, separated by commas, or "all": ' + ", ".join(
    f"{method} ({method.description})" for method in Method
)


def _option(panel: str, text: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel)


def _what(text: str, *names: str) -> Any:
    return _option("What", text, *names)


def _guest(text: str, *names: str) -> Any:
    return _option("Guest", text, *names)


def _move(text: str, *names: str) -> Any:
    return _option("Link and moves", text, *names)


def _auto(text: str, *names: str) -> Any:
    return _option("What auto aims at", text, *names)


def _output(text: str, *names: str) -> Any:
    return _option("Output", text, *names)


Text = str | None
Number = int | None
Switch = bool | None

Scenarios = Annotated[
    list[Path] | None,
    _what("Scenario file (TOML); may be given again. Flags override its keys.", "--scenario"),
]
Quick = Annotated[bool, _what("A VM of 512 MiB: about a minute. Not with --scenario.", "--quick")]
Nested = Annotated[
    bool,
    _what(
        "RDMA and a team of two NICs, on two emulated hosts with Debian's full kernel: some six "
        "minutes, in tables of their own. With flags of the guest and its moves only.",
        "--nested",
    ),
]
Suite = Annotated[
    Text,
    _what(
        "accuracy: hold forecasts against moves of many guests. peers: the same guests by "
        "whimbrel and by what others do. Takes --minutes and --seed, and no flag that describes "
        "one comparison.",
        "--suite",
    ),
]
Minutes = Annotated[
    float | None, _what("How long the suite runs; 30 unless told, peers 20.", "--minutes")
]
Seed = Annotated[Number, _what("Of the suite's guests and their order; 1 unless told.", "--seed")]
Methods = Annotated[Text, _what(_METHODS)]
Repeats = Annotated[Number, _what("How often each method runs.")]

Memory = Annotated[Text, _guest('Guest memory, "4 GiB".')]
Vcpus = Annotated[Number, _guest("Virtual CPUs.")]
Fill = Annotated[Text, _guest("Memory redlined; seven eighths unless told.")]
PatternFlag = Annotated[Text, _guest("zero, constant, text, random or mixed.", "--pattern")]
Hot = Annotated[Text, _guest("The part of it that goes on being rewritten.")]
DirtyRate = Annotated[Text, _guest('How fast it is, "50 MiB/s".')]
AccessFlag = Annotated[Text, _guest("uniform, sequential or skewed.", "--access")]
Touch = Annotated[Text, _guest('Bytes written per page, "4 KiB".')]
Freed = Annotated[
    Text, _guest("Memory filled and given back to the guest's kernel before each move.")
]
Accelerator = Annotated[Text, _guest("auto, kvm or tcg.")]
KernelFlag = Annotated[Path | None, _guest("Guest kernel to boot.", "--kernel")]
Modules = Annotated[
    Path | None, _guest("Its lib/modules/VERSION folder; found by the version unless told.")
]

LinkRate = Annotated[
    Text,
    _move('"1 Gbit/s" each way, or "unlimited"; of unequal NICs "1 Gbit/s, 500 Mbit/s".', "--link"),
]
Survey = Annotated[
    Text, _move("How deep to survey before each move: none, quick, default or deep.", "--survey")
]
Links = Annotated[Number, _move("How many NICs; multinic uses all of them.")]
Limit = Annotated[Text, _move('Bandwidth limit of a move, "500 Mbit/s".')]
DowntimeLimit = Annotated[Text, _move('Longest stop at switchover, "300 ms".')]
Timeout = Annotated[Text, _move('A move is called back after "120 s".')]
Channels = Annotated[Number, _move("Channels of multichannel moves.")]
Compression = Annotated[Text, _move('"zstd:1" or "zlib:6".')]
XbzrleCache = Annotated[Text, _move('Cache of xbzrle, "256 MiB".')]
PrepareMemory = Annotated[
    Switch,
    _move("Touch the destination's memory first.", "--prepare-memory/--no-prepare-memory"),
]
PrepareThreads = Annotated[Number, _move("Threads that touch it.")]
FreePageHints = Annotated[
    Switch,
    _move("Do not send what the guest calls free.", "--free-page-hints/--no-free-page-hints"),
]
Encrypted = Annotated[Switch, _move("Send everything through TLS.", "--encrypted/--no-encrypted")]

Goal = Annotated[Text, _auto("fastest, least-downtime, least-cpu or least-traffic.")]
MaxDowntime = Annotated[Text, _auto('How long the guest may stand still, "500 ms".')]
Deadline = Annotated[Text, _auto('By when the guest shall have moved, "90 s".')]
CpuBudget = Annotated[Text, _auto("Cores that a move may keep busy on each host, 1.5.")]
PostcopyFlag = Annotated[
    Switch,
    _auto("Whether the guest may move before its memory.", "--postcopy/--no-postcopy"),
]

Results = Annotated[Path | None, _output("Results folder; results/DATE unless told.")]
JsonFile = Annotated[
    Path | None, _output('Write the figures here as well; "-" is standard output.', "--json")
]


KEYS = {
    "methods": "methods",
    "repeats": "repeats",
    "memory": "guest.memory",
    "vcpus": "guest.vcpus",
    "fill": "guest.redline.fill",
    "pattern": "guest.redline.pattern",
    "hot": "guest.redline.hot",
    "dirty_rate": "guest.redline.dirty_rate",
    "access": "guest.redline.access",
    "touch": "guest.redline.touch",
    "freed": "guest.redline.freed",
    "accelerator": "accelerator",
    "kernel": "kernel",
    "survey": "survey",
    "modules": "modules",
    "link": "link.rate",
    "links": "link.count",
    "limit": "bandwidth_limit",
    "downtime_limit": "downtime_limit",
    "timeout": "timeout",
    "channels": "channels",
    "compression": "compression",
    "xbzrle_cache": "xbzrle_cache",
    "prepare_memory": "prepare_memory",
    "prepare_threads": "prepare_threads",
    "free_page_hints": "free_page_hints",
    "encrypted": "encrypted",
    "goal": "auto.goal",
    "max_downtime": "auto.max_downtime",
    "deadline": "auto.deadline",
    "cpu_budget": "auto.cpu_budget",
    "postcopy": "auto.postcopy",
}
"""Which key of a scenario file each flag stands for."""


def given_flags(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that were given, as a scenario file would have them."""
    flags: dict[str, Any] = {}
    for name, key in KEYS.items():
        value = given[name]
        if value is not None:
            _put(flags, key, str(value) if isinstance(value, Path) else value)
    return flags


def _put(table: dict[str, Any], key: str, value: object) -> None:
    *tables, last = key.split(".")
    for name in tables:
        table = table.setdefault(name, {})
    table[last] = value
