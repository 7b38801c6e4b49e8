import struct
from pathlib import Path

import pytest

from whimbrel.errors import ConfigError
from whimbrel.lab.paced import SIZE, Pacing, firmware, writes
from whimbrel.model.units import GIB, MIB, PAGE

PACING = Pacing(16 * MIB, 1024, 20_000)


def test_firmware_holds_its_parameters_and_begins_where_a_processor_does(tmp_path: Path) -> None:
    code = firmware(PACING, tmp_path).read_bytes()
    assert len(code) == SIZE
    assert struct.unpack_from("<3I", code) == (16 * MIB, 1023, 20_000)
    assert code[0xFFF0] == 0xE9  # a near jump (Intel SDM 2A, JMP)


def test_the_built_code_is_shared_and_never_changed(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    one = firmware(PACING, first).read_bytes()
    other = firmware(Pacing(32 * MIB, 2048, 1), second).read_bytes()
    assert one[12:] == other[12:]
    assert firmware(PACING, first).read_bytes() == one


@pytest.mark.parametrize(
    ("first", "pages", "rate"),
    [
        (PAGE, 16, 1),  # the counter lies there
        (MIB + 1, 16, 1),
        (MIB, 24, 1),
        (MIB, 0, 1),
        (MIB, 16, 0),
        (GIB + PAGE, GIB // PAGE, 1),
    ],
)
def test_what_the_guest_cannot_do_is_refused(first: int, pages: int, rate: int) -> None:
    with pytest.raises(ConfigError):
        Pacing(first, pages, rate)


def test_the_counter_is_read_as_the_processor_writes_it() -> None:
    assert writes((20_000).to_bytes(4, "little") + bytes(PAGE - 4)) == 20_000
    assert writes(bytes(PAGE)) == 0
