"""Model values as plain data that JSON can say, and back, walking the dataclasses' own fields.

    plain(value)          ──► dict, list, str, int, float, bool, None
    shaped(kind, data)    ──► the value again: shaped(type(v), plain(v)) == v

A field that is missing takes its default and one that is unknown is left out, so that a value
written by an older or newer whimbrel can be read as far as both know it.
"""

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from pathlib import PurePath
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def plain(value: object) -> object:
    """Return a value as plain data.

    Mappings with keys other than words become lists of pairs; numbers that JSON cannot say
    become the words "inf", "-inf" and "nan". Secret fields are left out.

    Raises:
        TypeError: It is made of something that has no plain form.
    """
    match value:
        case StrEnum() | PurePath():
            return str(value)
        case float() if not math.isfinite(value):
            return str(value)
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            return _plain_mapping(value)
        case list() | tuple():
            return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        told = [each.name for each in fields(value) if not each.metadata.get("secret")]
        return {name: plain(getattr(value, name)) for name in told}
    raise TypeError(f"no plain form for {type(value).__name__}")


def _plain_mapping(value: Mapping[Any, Any]) -> object:
    if all(type(key) is str for key in value):
        return {key: plain(item) for key, item in value.items()}
    return [[plain(key), plain(item)] for key, item in value.items()]


def shaped(kind: type[T], data: object) -> T:
    """Return plain data as a value of a dataclass, enum or number.

    Raises:
        ValueError: The data does not have this shape.
    """
    try:
        return cast("T", _shaped(kind, data))
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"this is no {kind.__name__}: {error}") from error


def _shaped(kind: Any, data: Any) -> object:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in {Union, types.UnionType}:
        return None if data is None else _shaped(_not_none(inner), data)
    if origin is tuple:
        return _tuple(inner, data)
    if origin is not None and issubclass(origin, Mapping):
        pairs = data.items() if isinstance(data, Mapping) else data
        return {_shaped(inner[0], key): _shaped(inner[1], item) for key, item in pairs}
    if is_dataclass(kind):
        return _dataclass(kind, data)
    return _scalar(kind, data)


def _scalar(kind: Any, data: Any) -> object:
    """Return one word, number or truth; what JSON says as another kind is refused."""
    if kind is float and isinstance(data, int | float | str) and not isinstance(data, bool):
        return float(data)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(data)
    if isinstance(kind, type) and issubclass(kind, PurePath) and isinstance(data, str):
        return kind(data)
    if kind in {bool, int, str} and type(data) is kind:
        return data
    raise TypeError(f"{data!r} is no {getattr(kind, '__name__', kind)}")


def _not_none(inner: tuple[Any, ...]) -> Any:
    kinds = [each for each in inner if each is not type(None)]
    if len(kinds) != 1:
        raise TypeError(f"several kinds are possible: {kinds}")
    return kinds[0]


def _tuple(inner: tuple[Any, ...], data: Any) -> object:
    if not isinstance(data, list):
        raise TypeError(f"{data!r} is no list")
    if len(inner) == 2 and inner[1] is Ellipsis:  # noqa: PLR2004 - tuple[X, ...]
        return tuple(_shaped(inner[0], item) for item in data)
    return tuple(_shaped(each, item) for each, item in zip(inner, data, strict=True))


def _dataclass(kind: Any, data: Any) -> object:
    hints = get_type_hints(kind)
    known = {
        each.name: _shaped(hints[each.name], data[each.name])
        for each in fields(kind)
        if each.name in data or _needed(each)
    }
    return kind(**known)


def _needed(each: Field[Any]) -> bool:
    """Tell whether a field has no default; asking for its data then says which one is missing."""
    return each.default is MISSING and each.default_factory is MISSING
