"""Names in a sentence."""

from collections.abc import Iterable


def listed(names: Iterable[str]) -> str:
    """Return names as a sentence lists them, each once: "a", "a and b", "a, b and c"."""
    *before, last = dict.fromkeys(names) or [""]
    return f"{', '.join(before)} and {last}" if before else last


def verb(names: Iterable[str], one: str, several: str) -> str:
    """Return the verb that goes with names: `one` for one of them, else `several`."""
    return one if len(set(names)) == 1 else several
