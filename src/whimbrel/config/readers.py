"""Readers of single values in files and flags, and what is wrong with them.

A reader raises `wrong(...)`, which `reading` turns into a line that names file and key.
"""

import difflib
import json
import math
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from whimbrel.errors import ConfigError
from whimbrel.model.units import parse_rate, parse_size, parse_time

UNLIMITED = "unlimited"
NONE = "none"

Choice = TypeVar("Choice", bound=StrEnum)


def wrong(what: str, hint: str = "") -> PydanticCustomError:
    """Return the error that a reader raises: what is wrong, without a full stop."""
    return PydanticCustomError("whimbrel", "{what}", {"what": what, "hint": hint})


def text(value: object, example: str) -> str:
    """Read a text."""
    if not isinstance(value, str):
        raise wrong(f"must be a text, not {written(value)}", f"Write it as {example}.")
    return value


def word(given: str, words: type[Choice]) -> Choice:
    """Read one word of an enumeration."""
    known = [each.value for each in words]
    if given in known:
        return words(given)
    raise wrong(f'"{given}" is not known', nearest(given, known))


def nearest(given: str, known: Iterable[str]) -> str:
    """Return a hint: the known name that comes closest, or all of them."""
    names = list(known)
    close = difflib.get_close_matches(given, names, n=1)
    return f'Did you mean "{close[0]}"?' if close else f"Known are: {', '.join(names)}."


def written(value: object) -> str:
    """Return a value as it stands in the file, shortened."""
    whole = json.dumps(value, ensure_ascii=False, default=str)
    return whole if len(whole) <= 40 else f"{whole[:40]} ..."  # noqa: PLR2004 - enough to know it


def cores(value: object) -> float | None:
    """Read a number of cores; "none" for as many as there are. A flag brings it as a text."""
    if value == NONE:
        return None
    number = isinstance(value, int | float | str) and not isinstance(value, bool)
    try:
        return float(str(value) if number else "")
    except ValueError:
        problem = f"must be a number of cores, not {written(value)}"
        raise wrong(problem, f'Write it as 1.5, or "{NONE}".') from None


def reader(
    parse: Callable[[str], float], example: str, nothing: str | None = None
) -> Callable[[object], float | None]:
    """Return a reader made of a parser from `units`; the word `nothing` stands for None."""

    def read(value: object) -> float | None:
        given = text(value, example)
        if given == nothing:
            return None
        try:
            return parse(given)
        except ConfigError as error:
            also = f' Or "{nothing}".' if nothing else ""
            raise wrong(error.what.removesuffix("."), error.hint + also) from error

    return read


def quantity(
    parse: Callable[[str], float], example: str, nothing: str | None = None
) -> BeforeValidator:
    """Make the same for a key."""
    return BeforeValidator(reader(parse, example, nothing))


link_rate = reader(parse_rate, '"1 Gbit/s"', UNLIMITED)
"""Reads what a NIC carries."""


def choice(words: type[Choice]) -> BeforeValidator:
    """Make a reader of one word of an enumeration."""
    return BeforeValidator(lambda value: word(text(value, f'"{next(iter(words))}"'), words))


def path(example: str) -> BeforeValidator:
    """Make a reader of a path."""
    return BeforeValidator(lambda value: Path(text(value, example)))


def more_than_nothing(value: Any) -> Any:
    """Refuse a number that is not more than 0."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise wrong("must be more than 0")
    return value


Size = Annotated[int, quantity(parse_size, '"512 MiB"')]
Time = Annotated[float, quantity(parse_time, '"300 ms"')]
TimeOrNone = Annotated[float | None, quantity(parse_time, '"90 s"', NONE)]
Rate = Annotated[float, quantity(parse_rate, '"50 MiB/s"')]
LinkRate = Annotated[float | None, BeforeValidator(link_rate)]
Limit = Annotated[float | None, quantity(parse_rate, '"1 Gbit/s"', NONE)]
Cores = Annotated[float | None, BeforeValidator(cores)]
