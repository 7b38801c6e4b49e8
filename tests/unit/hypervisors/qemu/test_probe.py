"""A probe's QEMU that fails is replaced once."""

import pytest

from whimbrel.errors import HostError, HostUnreachable
from whimbrel.hypervisors.qemu.probe import Abilities, at_second_try

FOUND = Abilities("10.0.2", {}, {})


class Attempts:
    def __init__(self, *endings: HostError | None) -> None:
        self.left = list(endings)

    async def __call__(self) -> Abilities:
        ending = self.left.pop(0)
        if ending is not None:
            raise ending
        return FOUND


async def test_a_probe_whose_qemu_crashed_is_repeated() -> None:
    attempts = Attempts(HostUnreachable("QEMU went away"), None)
    assert await at_second_try(attempts) is FOUND


async def test_a_probe_that_went_well_is_not_repeated() -> None:
    attempts = Attempts(None, HostError("asked again"))
    assert await at_second_try(attempts) is FOUND


async def test_what_fails_twice_is_raised() -> None:
    with pytest.raises(HostError, match="second"):
        await at_second_try(Attempts(HostError("first"), HostError("second"), None))
