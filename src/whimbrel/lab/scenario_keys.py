"""The keys of a scenario file and how each is written; values are judged by `check`.

Only keys and types are looked at here. Every pydantic error becomes a line of one
`ConfigError` that names the file, the key, what is wrong, and the nearest right name.
"""

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from whimbrel.errors import ConfigError
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
from whimbrel.model.units import parse_rate, parse_size, parse_time

UNLIMITED = "unlimited"
NONE = "none"
ALL = "all"

Choice = TypeVar("Choice", bound=StrEnum)
_LONGEST_LEVEL = 9
"""Digits of a level that are worth reading; `check` refuses such a level anyway."""


def read_methods(value: object) -> tuple[Method, ...]:
    """Read a list of names, "tcp,multichannel" or "all"."""
    if value == ALL:
        return tuple(Method)
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list):
        raise _wrong(f"must be a list of names, not {_written(value)}", 'Or "all".')
    return tuple(_word(_text(name, '"tcp"').strip(), Method) for name in names)


def read_compression(value: object) -> Compression:
    """Read "zstd:1", or "zstd" for level 1."""
    text = _text(value, '"zstd:1"')
    codec, colon, level = text.partition(":")
    if colon and not (level.isascii() and level.isdigit()):
        raise _wrong(f'"{text}" has no level after its colon', 'Write it as "zstd:1".')
    return Compression(_word(codec, Codec), int(level[:_LONGEST_LEVEL]) if colon else 1)


def read_depth(value: object) -> Depth | None:
    """Read "quick", "default" or "deep"; "none" surveys and predicts nothing."""
    text = _text(value, '"default"')
    return None if text == NONE else _word(text, Depth)


def read_cores(value: object) -> float | None:
    """Read a number of cores; "none" for as many as there are. A flag brings it as a text."""
    if value == NONE:
        return None
    number = isinstance(value, int | float | str) and not isinstance(value, bool)
    try:
        return float(str(value) if number else "")
    except ValueError:
        problem = f"must be a number of cores, not {_written(value)}"
        raise _wrong(problem, f'Write it as 1.5, or "{NONE}".') from None


def complaint(key: str, error: PydanticCustomError, origin: str) -> ConfigError:
    """Turn one reader's error about one key into what a person is told."""
    return ConfigError(f"{origin}: {key}: {error.message()}.", _hint(error.context))


def _wrong(what: str, hint: str = "") -> PydanticCustomError:
    return PydanticCustomError("whimbrel", "{what}", {"what": what, "hint": hint})


def _hint(context: Mapping[str, object] | None) -> str:
    return str((context or {}).get("hint", ""))


def _text(value: object, example: str) -> str:
    if not isinstance(value, str):
        raise _wrong(f"must be a text, not {_written(value)}", f"Write it as {example}.")
    return value


def _quantity(
    parse: Callable[[str], float], example: str, nothing: str | None = None
) -> BeforeValidator:
    """Make a reader of a parser from `units`; the word `nothing` stands for None."""

    def read(value: object) -> float | None:
        text = _text(value, example)
        if text == nothing:
            return None
        try:
            return parse(text)
        except ConfigError as error:
            also = f' Or "{nothing}".' if nothing else ""
            raise _wrong(error.what.removesuffix("."), error.hint + also) from error

    return BeforeValidator(read)


def _choice(words: type[Choice]) -> BeforeValidator:
    def read(value: object) -> Choice:
        return _word(_text(value, f'"{next(iter(words))}"'), words)

    return BeforeValidator(read)


def _word(text: str, words: type[Choice]) -> Choice:
    known = [word.value for word in words]
    if text in known:
        return words(text)
    raise _wrong(f'"{text}" is not known', _nearest(text, known))


def _nearest(text: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(text, names, n=1)
    return f'Did you mean "{close[0]}"?' if close else f"Known are: {', '.join(names)}."


def _written(value: object) -> str:
    """Return a value as it stands in the file, shortened."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 40 else f"{text[:40]} ..."  # noqa: PLR2004 - enough to know it


def _path(example: str) -> BeforeValidator:
    return BeforeValidator(lambda value: Path(_text(value, example)))


_Size = Annotated[int, _quantity(parse_size, '"512 MiB"')]
_Time = Annotated[float, _quantity(parse_time, '"300 ms"')]
_TimeOrNone = Annotated[float | None, _quantity(parse_time, '"90 s"', NONE)]
_Rate = Annotated[float, _quantity(parse_rate, '"50 MiB/s"')]
_LinkRate = Annotated[float | None, _quantity(parse_rate, '"1 Gbit/s"', UNLIMITED)]
_Limit = Annotated[float | None, _quantity(parse_rate, '"1 Gbit/s"', NONE)]

_SETTINGS = Settings()


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RedlineKeys(_Table):
    """[guest.redline]; without a fill, seven eighths of the guest's memory."""

    fill: _Size | None = None
    pattern: Annotated[Pattern, _choice(Pattern)] = Load().pattern
    hot: _Size = Load().hot
    dirty_rate: _Rate = Load().dirty_rate
    access: Annotated[Access, _choice(Access)] = Load().access
    touch: _Size = Load().touch
    freed: _Size = Load().freed


class GuestKeys(_Table):
    """[guest]."""

    memory: _Size = GuestSpec().memory
    vcpus: int = GuestSpec().vcpus
    redline: RedlineKeys = RedlineKeys()


class AutoKeys(_Table):
    """[auto]."""

    goal: Annotated[Goal, _choice(Goal)] = AutoSpec().goal
    max_downtime: _Time | None = None
    deadline: _TimeOrNone = None
    cpu_budget: Annotated[float | None, BeforeValidator(read_cores)] = None
    postcopy: bool = AutoSpec().postcopy


class LinkKeys(_Table):
    """[link]."""

    rate: _LinkRate = LinkSpec().rate
    count: int = LinkSpec().count


class ScenarioKeys(_Table):
    """A scenario file."""

    name: str | None = None
    repeats: int = Scenario().repeats
    methods: Annotated[tuple[Method, ...], BeforeValidator(read_methods)] = Scenario().methods
    timeout: _Time = Scenario().timeout
    downtime_limit: _Time = _SETTINGS.downtime_limit
    bandwidth_limit: _Limit = _SETTINGS.bandwidth_limit
    channels: int = _SETTINGS.channels
    compression: Annotated[Compression, BeforeValidator(read_compression)] = _SETTINGS.compression
    xbzrle_cache: _Size = _SETTINGS.xbzrle_cache
    prepare_memory: bool = _SETTINGS.prepared_memory is not None
    prepare_threads: int = (_SETTINGS.prepared_memory or PreparedMemory()).threads
    free_page_hints: bool = _SETTINGS.free_page_hints
    accelerator: Annotated[AcceleratorChoice, _choice(AcceleratorChoice)] = Scenario().accelerator
    kernel: Annotated[Path | None, _path('"/boot/vmlinuz"')] = None
    survey: Annotated[Depth | None, BeforeValidator(read_depth)] = Scenario().survey
    modules: Annotated[Path | None, _path('"/lib/modules/6.1.0"')] = None
    auto: AutoKeys = AutoKeys()
    link: LinkKeys = LinkKeys()
    guest: GuestKeys = GuestKeys()


def read_keys(mapping: Mapping[str, object], origin: str) -> ScenarioKeys:
    """Read TOML's values; one `ConfigError` tells every key that is wrong."""
    try:
        return ScenarioKeys.model_validate(dict(mapping))
    except ValidationError as error:
        told = [_told(details) for details in error.errors()]
        what = "\n".join(f"{origin}: {key}: {problem}." for key, problem, _ in told)
        hints = dict.fromkeys(hint for *_, hint in told if hint)
        raise ConfigError(what, "\n".join(hints)) from error


def _told(error: ErrorDetails) -> tuple[str, str, str]:
    """Return key, problem and hint of one of pydantic's errors."""
    place = [str(part) for part in error["loc"]]
    key, written = ".".join(place), _written(error["input"])
    if error["type"] == "extra_forbidden":
        return key, "no such key", _nearest_key(place)
    problems = {
        "whimbrel": error["msg"],
        "int_type": f"must be a whole number, not {written}",
        "bool_type": f"must be true or false, not {written}",
        "string_type": f"must be a text, not {written}",
        "model_type": f"must be a table ([{key}]), not {written}",
    }
    return key, problems.get(error["type"], error["msg"]), _hint(error.get("ctx"))


def _nearest_key(place: list[str]) -> str:
    """Look among the keys of the same table, then for the same name in another table."""
    keys = list(_all_keys(ScenarioKeys))
    table, name = tuple(place[:-1]), place[-1]
    siblings = [path[-1] for path in keys if path[:-1] == table]
    elsewhere = [".".join(path) for path in keys if path[-1] == name]
    if elsewhere and name not in siblings:
        return f'Did you mean "{elsewhere[0]}"?'
    return _nearest(name, siblings)


def _all_keys(model: type[BaseModel]) -> Iterable[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        yield (name,)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from ((name, *path) for path in _all_keys(field.annotation))
