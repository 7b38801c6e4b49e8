"""Which NICs two hosts share, and what a move takes of a link that others use as well."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from whimbrel.cli import ways
from whimbrel.cli.ways import further_links, link_to, share_of
from whimbrel.errors import ConfigError
from whimbrel.model.holder import Holder
from whimbrel.model.inventory import Host, MigrationLink
from whimbrel.ports import Site
from whimbrel.practice.marks import Mark
from whimbrel.theory.sharing import HEADERS

if TYPE_CHECKING:
    from whimbrel.cli.session import Session

A = Host("a", "qemu:///local", links=(MigrationLink("10.0.1.1"), MigrationLink("10.0.2.1")))
B = Host("b", "qemu:///local", links=(MigrationLink("10.0.1.2"), MigrationLink("10.0.2.2")))
HOLDER = Holder("me", "m", 1, 1, "boot", 0.0)
OTHER = Mark("1", "mail", "a", "b", HOLDER, host="10.0.1.2", alive=True)


def addresses(*links: str) -> tuple[MigrationLink, ...]:
    return tuple(MigrationLink(each) for each in links)


def further(source: Host, destination: Host) -> list[str]:
    first = link_to(source, destination)
    return [each.address for each in further_links(source, destination, first)]


def test_a_further_nic_lies_in_a_network_of_its_own_that_both_hosts_are_in() -> None:
    assert further(A, B) == ["10.0.2.2"]
    alike = replace(B, links=addresses("10.0.1.2", "10.0.1.3", "10.0.3.2", "10.0.2.2"))
    assert further(A, alike) == ["10.0.2.2"]
    assert further(replace(A, links=()), B) == []


class OneSite:
    """A host with one interface of 1 Gbit/s."""

    def __init__(self, name: str, address: str, rate: float | None) -> None:
        self.name, self.folder = name, "/run/whimbrel"
        self._address, self._rate = address, rate

    async def ask(self, question: str, **_: Any) -> Any:
        if question == "link_route":
            return self._address
        return {"eth0": {"addresses": [f"{self._address}/24"], "rate": self._rate}}


class Sites:
    """A session of two such hosts."""

    def __init__(self, rate: float | None) -> None:
        self._sites = {
            "a": OneSite("a", "10.0.1.1", rate),
            "b": OneSite("b", "10.0.1.2", rate),
        }

    def site(self, name: str) -> Site:
        return cast("Site", self._sites[name])

    def shells(self, names: Iterable[str]) -> list[Site]:
        return [self.site(name) for name in names]


def shared(
    monkeypatch: pytest.MonkeyPatch, *marks: Mark, left: float = 0.0, rate: float | None = 125e6
) -> ways.Share:
    async def on(_: Site) -> tuple[Mark, ...]:
        return marks

    monkeypatch.setattr(ways, "marks_on", on)
    session = cast("Session", Sites(rate))
    return asyncio.run(share_of(session, (A, B), B.links[:1], "web", left))


def test_alone_a_move_takes_the_whole_link(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shared(monkeypatch) == ways.Share()


def test_what_is_left_to_others_is_not_planned_with(monkeypatch: pytest.MonkeyPatch) -> None:
    found = shared(monkeypatch, left=0.6)
    assert found.limit == pytest.approx(0.4 * 125e6 / HEADERS)
    assert found.said is not None
    assert "60% of 1 Gbit/s stays for others" in found.said.detail


def test_each_other_move_over_the_same_network_takes_its_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unsaid = replace(OTHER, move="2", vm="db", host="", alive=None)
    found = shared(monkeypatch, OTHER, unsaid)
    assert found.limit == pytest.approx(125e6 / HEADERS / 3)
    assert found.said is not None
    assert "db, mail are on the way over this link as well" in found.said.detail


@pytest.mark.parametrize(
    "mark",
    [
        replace(OTHER, vm="web"),
        replace(OTHER, alive=False),
        replace(OTHER, host="10.0.2.2"),
        replace(OTHER, destination="a"),
    ],
    ids=["its own", "of one that died", "over another network", "of disks alone"],
)
def test_other_marks_take_nothing(monkeypatch: pytest.MonkeyPatch, mark: Mark) -> None:
    assert shared(monkeypatch, mark) == ways.Share()


def test_a_link_that_nobody_knows_is_not_divided_and_a_share_of_it_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = shared(monkeypatch, OTHER, rate=None)
    assert found.limit is None
    assert found.said is not None
    assert "rate" in found.said.remedy
    with pytest.raises(ConfigError, match="nobody knows the rate"):
        shared(monkeypatch, left=0.3, rate=None)
