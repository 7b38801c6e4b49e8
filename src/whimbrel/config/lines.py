"""On which line of a TOML file a value stands; the parser of the standard library does not tell.

A file is cut into statements (a table's header, or a key with its value) by letting that
parser say where each is complete. So nothing of TOML's grammar is written here again.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence

Place = tuple[str | int, ...]
"""The keys and positions that lead to a value: ("hosts", "a", "links", 0, "rate")."""

MOST_LINES = 1000
"""Lines of the longest file whose places are told; reading is quadratic in a long value."""


def line_numbers(text: str) -> dict[Place, int]:
    """Return the line, from 1, of every value in a TOML text; empty for what is no TOML."""
    found: dict[Place, int] = {}
    if text.count("\n") > MOST_LINES:
        return found
    table: Place = ()
    for number, statement in _statements(text.splitlines()):
        content = tomllib.loads(statement)
        if statement.lstrip().startswith("["):
            table = _header(content, found)
            for length in range(1, len(table) + 1):  # it makes the tables around it as well
                found.setdefault(table[:length], number)
        else:
            for place in _places(content):
                found.setdefault((*table, *place), number)
    return found


def line_of(place: Sequence[str | int], lines: Mapping[Place, int]) -> int | None:
    """Return the line of a value, or of the table that lacks it; None where neither is known."""
    for length in range(len(place), 0, -1):
        if tuple(place[:length]) in lines:
            return lines[tuple(place[:length])]
    return None


def _statements(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield every statement with the number of its first line; stop at what is no TOML."""
    begun: list[str] = []
    for number, line in enumerate(lines, start=1):
        begun.append(line)
        statement = "\n".join(begun)
        try:
            content = tomllib.loads(statement)
        except (ValueError, RecursionError):
            continue  # it goes on in the next line, or is none
        if content:
            yield number - len(begun) + 1, statement
        begun = []


def _header(content: Mapping[str, object], found: Mapping[Place, int]) -> Place:
    """Return the place of a header's table: in an array, that of the array's last one."""
    place: Place = ()
    here: object = content
    while isinstance(here, dict) and here:
        [(key, here)] = here.items()
        place = (*place, key)
        if isinstance(here, list):
            return (*place, _length(place, found))
        place = _last(place, found)
    return place


def _last(place: Place, found: Mapping[Place, int]) -> Place:
    length = _length(place, found)
    return (*place, length - 1) if length else place


def _length(place: Place, found: Mapping[Place, int]) -> int:
    """Return how many tables an array holds by now."""
    count = 0
    while (*place, count) in found:
        count += 1
    return count


def _places(content: object, before: Place = ()) -> Iterator[Place]:
    if before:
        yield before
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _places(value, (*before, key))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from _places(value, (*before, number))
