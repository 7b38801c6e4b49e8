"""Scenarios as data: TOML in, a checked `Scenario` out; every key stands in docs/scenarios.md.

    load_scenario ──► scenario_from ──► keys and types ──┐
    default_scenario ──► flags of the command line ──────┴──► check ──► Scenario
    scenario_toml: the way back, exact to the byte

Every mistake a person can make in a scenario ends as one `ConfigError` that names the file,
the key and what is wrong with it.
"""

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path

from pydantic_core import PydanticCustomError

from whimbrel.config.readers import NONE, UNLIMITED
from whimbrel.config.reading import complaint, read_toml
from whimbrel.lab.scenario_check import check, default_fill
from whimbrel.lab.scenario_keys import (
    LinkKeys,
    RedlineKeys,
    ScenarioKeys,
    read_compression,
    read_keys,
    read_methods,
)
from whimbrel.model.method import Compression, Method, PreparedMemory, Settings, classic
from whimbrel.model.scenario import AutoSpec, GuestSpec, LinkSpec, Load, Scenario
from whimbrel.model.survey import Depth
from whimbrel.model.units import GIB, KIB, MIB, parse_rate, parse_time

__all__ = [
    "check",
    "default_fill",
    "default_scenario",
    "load_scenario",
    "parse_compression",
    "parse_methods",
    "read_scenario_file",
    "scenario_from",
    "scenario_toml",
]

_SIZES = (("GiB", GIB), ("MiB", MIB), ("KiB", KIB))
_RATES = (("GiB/s", GIB), ("MiB/s", MIB), ("KiB/s", KIB))
_LINKS = (("Gbit/s", 1e9 / 8), ("Mbit/s", 1e6 / 8), ("kbit/s", 1e3 / 8))
_TIMES = (("s", 1.0), ("ms", 1e-3))
_SHORT = 9
"""Characters of a number that still reads well; a longer one is written in the base unit."""


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file; `ConfigError` where it cannot be read, parsed or used."""
    return scenario_from(read_scenario_file(path), str(path))


def read_scenario_file(path: Path) -> dict[str, object]:
    """Return a scenario file's keys as they stand; `ConfigError` where it is no TOML file."""
    return read_toml(path)


def scenario_from(mapping: Mapping[str, object], origin: str) -> Scenario:
    """Make a scenario of TOML's values; what is left out is as in `default_scenario`.

    `origin` stands before every complaint, and names the scenario where it has no name.
    """
    keys = read_keys(mapping, origin)
    memory, link = keys.guest.memory, _link_spec(keys.link)
    scenario = Scenario(
        name=Path(origin).stem if keys.name is None else keys.name,
        repeats=keys.repeats,
        methods=classic(link.count) if keys.methods is None else keys.methods,
        timeout=keys.timeout,
        link=link,
        guest=GuestSpec(memory, keys.guest.vcpus, _load(keys.guest.redline, memory)),
        settings=_settings(keys),
        auto=AutoSpec(**dict(keys.auto)),
        accelerator=keys.accelerator,
        kernel=keys.kernel,
        survey=keys.survey,
        modules=keys.modules,
    )
    check(scenario, origin)
    return scenario


def default_scenario(*, quick: bool) -> Scenario:
    """Return the classic comparison of a 4 GiB VM, or one of 512 MiB that is soon done."""
    if not quick:
        return Scenario()
    guest = GuestSpec(512 * MIB, redline=Load(fill=384 * MIB))
    return Scenario(name="quick", guest=guest, survey=Depth.QUICK)


def parse_methods(text: str, origin: str) -> tuple[Method, ...]:
    """Read "tcp,multichannel" or "all"; `ConfigError` names an unknown method's nearest."""
    try:
        return read_methods(text)
    except PydanticCustomError as error:
        raise complaint("methods", error, origin) from error


def parse_compression(text: str, origin: str) -> Compression:
    """Read "zstd:1", or "zstd" for level 1; whether the level exists is for `check` to say."""
    try:
        return read_compression(text)
    except PydanticCustomError as error:
        raise complaint("compression", error, origin) from error


def scenario_toml(scenario: Scenario) -> str:
    """Write a scenario so that `scenario_from` reads exactly it, and people can edit it."""
    settings, prepared = scenario.settings, scenario.settings.prepared_memory
    top = {
        "name": _quoted(scenario.name),
        "repeats": str(scenario.repeats),
        "methods": f"[{', '.join(_quoted(method.value) for method in scenario.methods)}]",
        "timeout": _time(scenario.timeout),
        "downtime_limit": _time(settings.downtime_limit),
        "bandwidth_limit": _link(settings.bandwidth_limit, NONE),
        "channels": str(settings.channels),
        "compression": _quoted(f"{settings.compression.codec}:{settings.compression.level}"),
        "xbzrle_cache": _size(settings.xbzrle_cache),
        "prepare_memory": "false" if prepared is None else "true",
        "prepare_threads": None if prepared is None else str(prepared.threads),
        "free_page_hints": "true" if settings.free_page_hints else "false",
        "encrypted": "true" if settings.encrypted else "false",
        "accelerator": _quoted(scenario.accelerator.value),
        "kernel": _path(scenario.kernel),
        "survey": _quoted(NONE if scenario.survey is None else scenario.survey.value),
        "modules": _path(scenario.modules),
    }
    link = {"rate": _rates(scenario.link), "count": str(scenario.link.count)}
    guest = {"memory": _size(scenario.guest.memory), "vcpus": str(scenario.guest.vcpus)}
    redline = _redline(scenario.guest.redline)
    tables: dict[str, Mapping[str, str | None]]
    tables = {"auto": _aims(scenario.auto), "link": link, "guest": guest, "guest.redline": redline}
    texts = [_lines(top), *(f"[{name}]\n{_lines(table)}" for name, table in tables.items())]
    return "\n".join(texts)


def _link_spec(keys: LinkKeys) -> LinkSpec:
    rates = keys.rate
    if len(rates) == 1:
        return LinkSpec(rates[0], 1 if keys.count is None else keys.count)
    return LinkSpec(rates[0], len(rates) if keys.count is None else keys.count, rates)


def _load(keys: RedlineKeys, memory: int) -> Load:
    return Load(
        fill=default_fill(memory, keys.freed) if keys.fill is None else keys.fill,
        pattern=keys.pattern,
        hot=keys.hot,
        dirty_rate=keys.dirty_rate,
        access=keys.access,
        touch=keys.touch,
        freed=keys.freed,
    )


def _settings(keys: ScenarioKeys) -> Settings:
    return Settings(
        channels=keys.channels,
        compression=keys.compression,
        xbzrle_cache=keys.xbzrle_cache,
        bandwidth_limit=keys.bandwidth_limit,
        downtime_limit=keys.downtime_limit,
        prepared_memory=PreparedMemory(keys.prepare_threads) if keys.prepare_memory else None,
        free_page_hints=keys.free_page_hints,
        encrypted=keys.encrypted,
    )


def _aims(auto: AutoSpec) -> dict[str, str | None]:
    return {
        "goal": _quoted(auto.goal.value),
        "max_downtime": None if auto.max_downtime is None else _time(auto.max_downtime),
        "deadline": _quoted(NONE) if auto.deadline is None else _time(auto.deadline),
        "cpu_budget": _quoted(NONE) if auto.cpu_budget is None else _digits(auto.cpu_budget),
        "postcopy": "true" if auto.postcopy else "false",
    }


def _redline(load: Load) -> dict[str, str]:
    return {
        "fill": _size(load.fill),
        "pattern": _quoted(load.pattern.value),
        "hot": _size(load.hot),
        "dirty_rate": _exact(load.dirty_rate, _RATES, "B/s", parse_rate),
        "access": _quoted(load.access.value),
        "touch": _size(load.touch),
        "freed": _size(load.freed),
    }


def _lines(table: Mapping[str, str | None]) -> str:
    return "".join(f"{key} = {value}\n" for key, value in table.items() if value is not None)


def _quoted(text: str) -> str:
    """A TOML basic string is a JSON string but for DEL, which JSON leaves bare."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _path(path: Path | None) -> str | None:
    return None if path is None else _quoted(str(path))


def _size(size: int) -> str:
    unit, factor = next((u for u in _SIZES if size and size % u[1] == 0), ("B", 1))
    return f'"{size // factor} {unit}"'


def _time(seconds: float) -> str:
    return _exact(seconds, _TIMES, "s", parse_time)


def _link(rate: float | None, nothing: str) -> str:
    return f'"{nothing}"' if rate is None else _exact(rate, _LINKS, "B/s", parse_rate)


def _rates(link: LinkSpec) -> str:
    if not link.rates:
        return _link(link.rate, UNLIMITED)
    return f"[{', '.join(_link(each, UNLIMITED) for each in link.rates)}]"


def _exact(
    value: float,
    units: tuple[tuple[str, float], ...],
    base: str,
    parse: Callable[[str], float],
) -> str:
    """Write a quantity in the first unit that reads back as just this value."""
    for unit, factor in units:
        number = _digits(value / factor)
        short = value >= factor and len(number) <= _SHORT
        if short and parse(f"{number} {unit}") == value:
            return f'"{number} {unit}"'
    return f'"{_digits(value)} {base}"'


def _digits(number: float) -> str:
    """Return a number without an exponent, which quantities do not have."""
    text = format(Decimal(repr(float(number))), "f")
    return text.removesuffix(".0")
