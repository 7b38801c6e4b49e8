"""When a move counts as one that gets on no more, by libvirt's figures."""

from collections.abc import Mapping
from typing import Any

import pytest

from whimbrel.hypervisors.libvirt.silence import SILENT_AT_MOST, Silence

LATE = SILENT_AT_MOST + 1
MEMORY = {"memory_total": 1 << 30, "memory_processed": 1 << 20}
DISK = {"disk_total": 1 << 30, "disk_processed": 1 << 20}


@pytest.mark.parametrize("job", [MEMORY, DISK])
def test_figures_that_stand_still_are_borne_for_so_long_and_no_longer(
    job: Mapping[str, Any],
) -> None:
    silence = Silence(0.0)
    assert not silence.too_long(job, 10.0)
    assert not silence.too_long(job, 10.0 + SILENT_AT_MOST)
    assert silence.too_long(job, 10.0 + LATE)


@pytest.mark.parametrize("figure", ["memory_processed", "disk_processed"])
def test_whatever_gets_on_breaks_the_silence(figure: str) -> None:
    silence, job = Silence(0.0), MEMORY | DISK
    assert not silence.too_long(job, 0.0)
    on = {**job, figure: job[figure] + 1}
    assert not silence.too_long(on, LATE)
    assert not silence.too_long(on, LATE + SILENT_AT_MOST)
    assert silence.too_long(on, 2 * LATE)


def test_before_anything_travels_there_is_no_silence() -> None:
    silence = Silence(0.0)
    assert not silence.too_long({}, LATE)
    assert not silence.too_long({"memory_total": 0, "disk_total": 0}, 2 * LATE)
    assert not silence.too_long({"disk_total": 1 << 30}, 2 * LATE + 1)
