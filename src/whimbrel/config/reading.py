"""TOML that people write, read into checked tables; every complaint has the same shape.

A table is a pydantic model whose fields read their own quantities. Each mistake becomes a line
of one `ConfigError` that names the file, its line where that is known, the key, what is wrong,
and the nearest right name. What may stand in no file at all is a password: it is refused
without being repeated.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from whimbrel.config.lines import Place, line_numbers, line_of
from whimbrel.config.readers import nearest, written
from whimbrel.errors import ConfigError

Keys = TypeVar("Keys", bound="Table")

_SECRETS = ("password", "passwd", "passphrase", "secret", "token", "pwd", "private_key")
_NO_SECRETS = (
    "Leave it out: whimbrel logs in with your SSH keys, from the agent or the file that "
    "`identity` names. ssh-copy-id USER@HOST puts a key on a host."
)
_TWICE = re.compile(r"Cannot (?:declare|overwrite)[^(]*(?:\(.*?\)[^(]*)?\(at line (\d+)")


class Table(BaseModel):
    """A table of a file: no key but those it names, and no guessing at types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


@dataclass(frozen=True)
class Source:
    """Where values come from, for complaints.

    Attributes:
        name: The file, or "command line".
        lines: The line of each value, where they are known.
    """

    name: str
    lines: Mapping[Place, int] = field(default_factory=dict)

    def at(self, place: Sequence[str | int]) -> str:
        """Say where a value stands: "whimbrel.toml:3"."""
        line = line_of(place, self.lines)
        return self.name if line is None else f"{self.name}:{line}"


def read_text(path: Path) -> str:
    """Return a file's text; `ConfigError` where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text.") from error


def read_toml(path: Path) -> dict[str, object]:
    """Return a file's keys as they stand; `ConfigError` where it is no TOML file."""
    return parse_toml(read_text(path), str(path))


def parse_toml(text: str, name: str) -> dict[str, object]:
    """Return a text's keys as they stand; `ConfigError` where it is no TOML."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        twice = _TWICE.match(str(error))
        if twice:
            line = int(twice[1])
            raise ConfigError(
                f"{name}:{line}: {_written_at(text, line)} is written twice.",
                "Each name stands for one thing only: rename or remove one of them.",
            ) from error
        hint = 'Texts and quantities stand in quotes: memory = "2 GiB".'
        raise ConfigError(f"{name}: is not valid TOML: {error}.", hint) from error


def read_file(path: Path) -> tuple[dict[str, object], Source]:
    """Return a file's keys and where they stand; passwords are refused."""
    text = read_text(path)
    mapping = parse_toml(text, str(path))
    source = Source(str(path), line_numbers(text))
    refuse_secrets(mapping, source)
    return mapping, source


def read_keys(model: type[Keys], mapping: Mapping[str, object], source: Source) -> Keys:
    """Read TOML's values; one `ConfigError` tells every key that is wrong."""
    try:
        return model.model_validate(dict(mapping))
    except ValidationError as error:
        told = [_told(details, model) for details in error.errors()]
        told.sort(key=lambda each: line_of(each[0], source.lines) or 0)
        lines = (f"{source.at(place)}: {key_text(place)}: {what}." for place, what, _ in told)
        hints = dict.fromkeys(hint for *_, hint in told if hint)
        raise ConfigError("\n".join(lines), "\n".join(hints)) from error


def refuse_secrets(mapping: Mapping[str, object], source: Source) -> None:
    """Raise `ConfigError` for every key that looks like a password; its value is not repeated."""
    found = [place for place, value in _values(mapping) if _is_secret(str(place[-1]), value)]
    if found:
        lines = (
            f"{source.at(place)}: {key_text(place)}: no password may stand in a file."
            for place in found
        )
        raise ConfigError("\n".join(lines), _NO_SECRETS)


def complaint(key: str, error: PydanticCustomError, origin: str) -> ConfigError:
    """Turn one reader's error about one key into what a person is told."""
    return ConfigError(f"{origin}: {key}: {error.message()}.", _hint(error.context))


def key_text(place: Sequence[str | int]) -> str:
    """Write a place as people do: "hosts.a.links[0].rate"."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def _told(error: ErrorDetails, model: type[BaseModel]) -> tuple[Place, str, str]:
    """Return place, problem and hint of one of pydantic's errors."""
    place = error["loc"]
    if error["type"] == "extra_forbidden":
        return place, "no such key", _nearest_key(place, model)
    key, given = key_text(place), written(error["input"])
    problems = {
        "whimbrel": error["msg"],
        "missing": "is missing",
        "int_type": f"must be a whole number, not {given}",
        "bool_type": f"must be true or false, not {given}",
        "string_type": f"must be a text, not {given}",
        "list_type": f"must be a list, not {given}",
        "dict_type": f"must be a table ([{key}]), not {given}",
        "model_type": f"must be a table ([{key}]), not {given}",
    }
    return place, problems.get(error["type"], error["msg"]), _hint(error.get("ctx"))


def _hint(context: Mapping[str, object] | None) -> str:
    return str((context or {}).get("hint", ""))


def _nearest_key(place: Place, model: type[BaseModel]) -> str:
    """Look among the keys of the same table, then for the same name in another table."""
    name = str(place[-1])
    siblings = list(_table_at(place[:-1], model).model_fields)
    elsewhere = [".".join(keys) for keys in _all_keys(model) if keys[-1] == name]
    if elsewhere and name not in siblings:
        return f'Did you mean "{elsewhere[0]}"?'
    return nearest(name, siblings)


def _table_at(place: Place, model: type[BaseModel]) -> type[BaseModel]:
    """Return the table at a place."""
    parts = iter(place)
    for part in parts:
        annotation = model.model_fields[str(part)].annotation
        model = _table_in(annotation) or model
        if get_origin(annotation) in {list, dict}:
            next(parts, None)  # a position, or a name that is free
    return model


def _table_in(annotation: object) -> type[BaseModel] | None:
    """Return the table that a field holds: one, a list of them, or one for each name."""
    if get_origin(annotation) in {list, dict}:
        return _table_in(get_args(annotation)[-1])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None


def _all_keys(model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    for name, field_info in model.model_fields.items():
        yield (name,)
        below = _table_in(field_info.annotation)
        if below is not None:
            named = get_origin(field_info.annotation) is dict
            between = (name, "NAME") if named else (name,)
            yield from ((*between, *keys) for keys in _all_keys(below))


def _values(content: object, before: Place = ()) -> Iterator[tuple[Place, object]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield (*before, key), value
            yield from _values(value, (*before, key))
    elif isinstance(content, list):
        for number, value in enumerate(content):
            yield from _values(value, (*before, number))


def _is_secret(key: str, value: object) -> bool:
    plain = key.lower().replace("-", "_")
    return not isinstance(value, Mapping) and any(secret in plain for secret in _SECRETS)


def _written_at(content: str, line: int) -> str:
    """Return the key that stands on a line, for people."""
    found = content.splitlines()[line - 1 : line]
    return found[0].partition("=")[0].strip() if found else "a key"
