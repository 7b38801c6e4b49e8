"""The keys of a scenario file and how each is written; values are judged by `check`.

Only keys and types are looked at here; `config.reading` turns every mistake into a line of one
`ConfigError` that names the file, the key, what is wrong, and the nearest right name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator

from whimbrel.config import reading
from whimbrel.config.readers import (
    NONE,
    Cores,
    Limit,
    Rate,
    Size,
    Time,
    TimeOrNone,
    choice,
    link_rate,
    path,
    text,
    word,
    written,
    wrong,
)
from whimbrel.config.reading import Source, Table
from whimbrel.model.method import Codec, Compression, Method, PreparedMemory, Settings
from whimbrel.model.plan import Goal
from whimbrel.model.scenario import (
    AcceleratorChoice,
    Access,
    AutoSpec,
    GuestSpec,
    LinkSpec,
    Load,
    Pattern,
    Scenario,
)
from whimbrel.model.survey import Depth

ALL = "all"

_LONGEST_LEVEL = 9
"""Digits of a level that are worth reading; `check` refuses such a level anyway."""

_SETTINGS = Settings()


def read_methods(value: object) -> tuple[Method, ...]:
    """Read a list of names, "tcp,multichannel" or "all"."""
    if value == ALL:
        return tuple(Method)
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list):
        raise wrong(f"must be a list of names, not {written(value)}", 'Or "all".')
    return tuple(word(text(name, '"tcp"').strip(), Method) for name in names)


def read_compression(value: object) -> Compression:
    """Read "zstd:1", or "zstd" for level 1."""
    given = text(value, '"zstd:1"')
    codec, colon, level = given.partition(":")
    if colon and not (level.isascii() and level.isdigit()):
        raise wrong(f'"{given}" has no level after its colon', 'Write it as "zstd:1".')
    return Compression(word(codec, Codec), int(level[:_LONGEST_LEVEL]) if colon else 1)


def read_rates(value: object) -> tuple[float | None, ...]:
    """Read the rate of every NIC, or those of each: a list, or "1 Gbit/s, 500 Mbit/s"."""
    each = value.split(",") if isinstance(value, str) else value
    if not isinstance(each, list) or not each:
        raise wrong(f"must be a rate, or a list of rates, not {written(value)}", 'Or "unlimited".')
    return tuple(link_rate(one.strip() if isinstance(one, str) else one) for one in each)


def read_depth(value: object) -> Depth | None:
    """Read "quick", "default" or "deep"; "none" surveys and predicts nothing."""
    given = text(value, '"default"')
    return None if given == NONE else word(given, Depth)


LinkRates = Annotated[tuple[float | None, ...], BeforeValidator(read_rates)]


class RedlineKeys(Table):
    """[guest.redline]; without a fill, seven eighths of the guest's memory."""

    fill: Size | None = None
    pattern: Annotated[Pattern, choice(Pattern)] = Load().pattern
    hot: Size = Load().hot
    dirty_rate: Rate = Load().dirty_rate
    access: Annotated[Access, choice(Access)] = Load().access
    touch: Size = Load().touch
    freed: Size = Load().freed


class GuestKeys(Table):
    """[guest]."""

    memory: Size = GuestSpec().memory
    vcpus: int = GuestSpec().vcpus
    redline: RedlineKeys = RedlineKeys()


class AutoKeys(Table):
    """[auto]."""

    goal: Annotated[Goal, choice(Goal)] = AutoSpec().goal
    max_downtime: Time | None = None
    deadline: TimeOrNone = None
    cpu_budget: Cores = None
    postcopy: bool = AutoSpec().postcopy


class LinkKeys(Table):
    """[link]."""

    rate: LinkRates = (LinkSpec().rate,)
    count: int | None = None


class ScenarioKeys(Table):
    """A scenario file."""

    name: str | None = None
    repeats: int = Scenario().repeats
    methods: Annotated[tuple[Method, ...] | None, BeforeValidator(read_methods)] = None
    timeout: Time = Scenario().timeout
    downtime_limit: Time = _SETTINGS.downtime_limit
    bandwidth_limit: Limit = _SETTINGS.bandwidth_limit
    channels: int = _SETTINGS.channels
    compression: Annotated[Compression, BeforeValidator(read_compression)] = _SETTINGS.compression
    xbzrle_cache: Size = _SETTINGS.xbzrle_cache
    prepare_memory: bool = _SETTINGS.prepared_memory is not None
    prepare_threads: int = (_SETTINGS.prepared_memory or PreparedMemory()).threads
    free_page_hints: bool = _SETTINGS.free_page_hints
    encrypted: bool = _SETTINGS.encrypted
    accelerator: Annotated[AcceleratorChoice, choice(AcceleratorChoice)] = Scenario().accelerator
    kernel: Annotated[Path | None, path('"/boot/vmlinuz"')] = None
    survey: Annotated[Depth | None, BeforeValidator(read_depth)] = Scenario().survey
    modules: Annotated[Path | None, path('"/lib/modules/6.1.0"')] = None
    auto: AutoKeys = AutoKeys()
    link: LinkKeys = LinkKeys()
    guest: GuestKeys = GuestKeys()


def read_keys(mapping: Mapping[str, object], origin: str) -> ScenarioKeys:
    """Read TOML's values; one `ConfigError` tells every key that is wrong."""
    return reading.read_keys(ScenarioKeys, mapping, Source(origin))
