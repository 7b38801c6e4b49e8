import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.model.memory import (
    DirtyCurve,
    HostProfile,
    LinkProfile,
    MemoryProfile,
    PageClass,
    Survey,
    WireRatio,
)
from whimbrel.model.method import Codec, Compression, Postcopy, PreparedMemory, Tuning
from whimbrel.model.plain import plain, shaped
from whimbrel.model.prediction import Interval

floats = st.floats(allow_nan=False)
compressions = st.builds(Compression, st.sampled_from(Codec), st.integers(1, 20))
surveys = st.builds(
    Survey,
    st.builds(
        MemoryProfile,
        total=st.integers(4096, 1 << 44),
        dirty=st.builds(
            DirtyCurve,
            st.lists(st.builds(PageClass, floats, floats, st.booleans())).map(tuple),
            floats,
            floats,
        ),
        ratios=st.dictionaries(compressions, st.builds(WireRatio, floats, floats, floats)),
        delta_bytes=st.none() | floats,
        extent=st.none() | st.tuples(st.integers(), st.integers()),
    ),
    st.builds(LinkProfile, st.dictionaries(st.integers(1, 64), floats, min_size=1)),
    st.builds(HostProfile, compress_speed=st.dictionaries(compressions, floats)),
)
tunings = st.builds(
    Tuning,
    compression=st.none() | compressions,
    postcopy=st.sampled_from(Postcopy),
    prepared_memory=st.none() | st.builds(PreparedMemory, st.integers(1, 8)),
    bandwidth_limit=st.none() | floats,
)


@given(surveys | tunings)
def test_what_was_made_plain_comes_back_the_same_through_json(value: Survey | Tuning) -> None:
    text = json.dumps(plain(value), allow_nan=False)
    assert shaped(type(value), json.loads(text)) == value


def test_numbers_that_json_cannot_say_become_words() -> None:
    band = Interval(-math.inf, 0.0, math.inf)
    assert plain(band) == {"p10": "-inf", "p50": 0.0, "p90": "inf"}
    assert shaped(Interval, plain(band)) == band


def test_an_older_value_takes_the_defaults_and_a_newer_one_loses_what_is_unknown() -> None:
    assert shaped(Tuning, {"throttling": True}) == Tuning(throttling=True)
    assert shaped(Tuning, {"telepathy": True}) == Tuning()


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (Interval, {"p10": 1.0, "p50": 2.0}),
        (Interval, {"p10": 1.0, "p50": 2.0, "p90": None}),
        (Interval, {"p10": 1.0, "p50": 2.0, "p90": "soon"}),
        (Interval, []),
        (Interval, 3),
        (Tuning, {"channels": "two"}),
        (Tuning, {"channels": True}),
        (Tuning, {"postcopy": "sometimes"}),
        (DirtyCurve, {"classes": "none"}),
        (DirtyCurve, {"classes": [7]}),
        (LinkProfile, {"goodput": [[1]]}),
    ],
)
def test_data_of_another_shape_is_refused(kind: type[Any], data: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words are Python's own in places
        shaped(kind, data)


def test_what_has_no_plain_form_is_refused() -> None:
    with pytest.raises(TypeError, match="object"):
        plain(object())
