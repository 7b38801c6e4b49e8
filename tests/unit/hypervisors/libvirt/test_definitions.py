"""Where a VM is defined after a move that nobody saw to its end."""

from typing import TYPE_CHECKING, cast

import pytest

from whimbrel.hypervisors.libvirt.definitions import follow_guest
from whimbrel.hypervisors.libvirt.states import State

if TYPE_CHECKING:
    from whimbrel.hypervisors.libvirt.host import LibvirtHost


class Domain:
    """A VM that libvirt holds, and the connection that leads to it."""

    def __init__(self, state: State, *, defined: bool, uuid: str = "1") -> None:
        self._state, self.defined, self.id = state, defined, uuid

    @property
    def connection(self) -> "Domain":
        return self

    async def state(self) -> State:
        return self._state

    async def persistent(self) -> bool:
        return self.defined

    async def kept_xml(self) -> str:
        return "<domain/>"

    async def define(self, xml: str) -> None:
        assert xml == "<domain/>"
        self.defined = True

    async def forget(self) -> None:
        self.defined = False


class Host:
    def __init__(self, name: str, domain: Domain | None) -> None:
        self.name, self._domain = name, domain

    async def connection(self) -> "Host":
        return self

    async def domain(self, name: str) -> Domain | None:
        assert name == "web"
        return self._domain


async def followed(behind: Domain | None, here: Domain | None) -> str:
    left, home = (cast("LibvirtHost", Host(*each)) for each in (("a", behind), ("b", here)))
    return await follow_guest("web", left, home)


@pytest.mark.parametrize("defined", [False, True])
async def test_a_definition_follows_a_guest_whose_leader_died(*, defined: bool) -> None:
    behind, here = Domain(State.OFF, defined=True), Domain(State.RUNNING, defined=defined)
    assert "on a no more" in await followed(behind, here)
    assert (behind.defined, here.defined) == (False, True)


@pytest.mark.parametrize(
    ("behind", "here"),
    [
        (None, Domain(State.RUNNING, defined=False)),
        (Domain(State.RUNNING, defined=True), Domain(State.RUNNING, defined=False)),
        (Domain(State.OFF, defined=True), Domain(State.OFF, defined=False)),
        (Domain(State.OFF, defined=True), Domain(State.RUNNING, defined=False, uuid="2")),
        (Domain(State.OFF, defined=True), None),
    ],
)
async def test_nothing_is_forgotten_that_may_still_be_needed(
    behind: Domain | None, here: Domain | None
) -> None:
    before = behind is not None and behind.defined
    assert await followed(behind, here) == ""
    assert (behind is not None and behind.defined) is before
