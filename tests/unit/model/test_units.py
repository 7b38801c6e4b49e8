"""Quantities: what people write is what is meant, or an error that helps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.errors import ConfigError
from whimbrel.model.units import (
    GIB,
    KIB,
    MIB,
    format_link,
    format_rate,
    format_size,
    format_time,
    parse_rate,
    parse_size,
    parse_time,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4 GiB", 4 * GIB),
        ("4GiB", 4 * GIB),
        ("  512 MiB ", 512 * MIB),
        ("1.5 KiB", 1536),
        ("5 GB", 5 * 10**9),
        ("1 kB", 1000),
        ("1 KB", 1000),
        ("0 B", 0),
    ],
)
def test_sizes_are_binary_or_decimal_as_written(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1 Gbit/s", 125e6),
        ("10 Gbit/s", 1.25e9),
        ("50 MiB/s", 50 * MIB),
        ("8 bit/s", 1),
        ("3 B/s", 3),
    ],
)
def test_rates_are_bytes_per_second_whether_bits_or_bytes(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("300 ms", 0.3), ("120 s", 120), ("2 min", 120), ("1 h", 3600), ("5 us", 5e-6)],
)
def test_times_are_seconds(text: str, seconds: float) -> None:
    assert parse_time(text) == pytest.approx(seconds, rel=1e-12)


def test_both_letters_for_micro_are_read() -> None:
    assert parse_time("5 \N{MICRO SIGN}s") == parse_time("5 us")


@pytest.mark.parametrize("parse", [parse_size, parse_rate, parse_time])
@pytest.mark.parametrize("text", ["5", "", "s", "-5 s", "-5 B", "5 5 s", "1e3 B", "5 parsec", "."])
def test_what_is_no_quantity_is_refused_with_an_example(parse: type, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert f'"{text}"' in caught.value.what
    assert "such as" in caught.value.hint


def test_a_missing_unit_is_named_as_such() -> None:
    with pytest.raises(ConfigError, match="has no unit"):
        parse_rate("1000")


@pytest.mark.parametrize("text", ["1 GiB", "1 Gbit", "1 s"])
def test_a_size_is_no_rate(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a rate"):
        parse_rate(text)


@pytest.mark.parametrize("parse", [parse_size, parse_rate, parse_time])
def test_a_number_beyond_all_bounds_is_refused(parse: type) -> None:
    unit = {parse_size: "B", parse_rate: "B/s", parse_time: "s"}[parse]
    with pytest.raises(ConfigError):
        parse(f"{'9' * 400} {unit}")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3584 * MIB, "3.5 GiB"), (1 << 42, "4 TiB")],
)
def test_sizes_are_printed_in_the_largest_unit_that_fits(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 ms"),
        (0.0171, "17.1 ms"),
        (2.314, "2.31 s"),
        (34.06, "34.1 s"),
        (120, "2 min"),
        (185, "3 min 5 s"),
    ],
)
def test_times_are_printed_with_three_digits_at_most(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


def test_links_are_printed_in_bits_and_memory_in_bytes() -> None:
    assert format_link(125e6) == "1 Gbit/s"
    assert format_link(50.0) == "400 bit/s"
    assert format_rate(50.0 * MIB) == "50 MiB/s"


@given(st.integers(0, 1 << 44))
def test_a_printed_size_reads_back_nearly_the_same(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.006)


@given(st.floats(1.0, 1e12))
def test_a_printed_link_reads_back_nearly_the_same(rate: float) -> None:
    assert parse_rate(format_link(rate)) == pytest.approx(rate, rel=0.006)


@given(st.integers(0, 1 << 50))
def test_bytes_are_exact(size: int) -> None:
    assert parse_size(f"{size} B") == size


@given(st.integers(1, 1 << 20))
def test_binary_units_are_factors_of_1024(size: int) -> None:
    assert parse_size(f"{size} KiB") == size * KIB
