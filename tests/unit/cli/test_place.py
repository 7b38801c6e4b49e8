"""Between which hosts a move leads, and what runs the VMs there."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from whimbrel.cli.place import LibvirtPlace, QemuPlace, refuse_unlike
from whimbrel.cli.session import Session
from whimbrel.config import Config
from whimbrel.errors import CommandRefused, ConfigError
from whimbrel.hypervisors.libvirt import LibvirtHost
from whimbrel.hypervisors.qemu import ResidentHost
from whimbrel.model.inventory import X509, Host
from whimbrel.model.migration import Event, Phase, PhaseChange
from whimbrel.model.overview import VmSeen, VmState

QEMU = Host("a", "qemu+ssh://a")
LIBVIRT = Host("b", "libvirt+ssh://b/system")
HERE = Host("c", "libvirt:///system")
BARE = Host("d", "libvirt+tls://d/system")


def test_a_session_knows_what_runs_each_host() -> None:
    hosts = {each.name: each for each in (QEMU, LIBVIRT, BARE)}
    session = Session(Config(hosts=hosts))
    assert isinstance(session.place("a"), QemuPlace)
    assert isinstance(session.place("b"), LibvirtPlace)
    assert session.place("b") is session.place("b")
    assert session.place("b").hypervisor is session.libvirt("b")
    assert list(session.with_shell()) == ["a", "b"]


def test_what_libvirt_runs_is_typed_into_with_virsh() -> None:
    session = Session(Config(hosts={each.name: each for each in (QEMU, LIBVIRT)}))
    session.refuse_libvirt(VmSeen("web", "a", VmState.RUNNING), "virsh console web")
    with pytest.raises(ConfigError, match=r"run by libvirt(.|\n)*virsh console web   # on b"):
        session.refuse_libvirt(VmSeen("web", "b", VmState.RUNNING), "virsh console web")


@pytest.mark.parametrize(
    "pair", [(QEMU, QEMU), (LIBVIRT, HERE), (HERE, LIBVIRT), (BARE, LIBVIRT), (BARE, BARE)]
)
def test_a_move_leads_between_hosts_of_one_kind(pair: tuple[Host, Host]) -> None:
    refuse_unlike(*pair)


@pytest.mark.parametrize("pair", [(QEMU, LIBVIRT), (LIBVIRT, QEMU)])
def test_no_move_leads_from_one_kind_to_the_other(pair: tuple[Host, Host]) -> None:
    with pytest.raises(ConfigError, match=r"plain QEMU(.|\n)*two hosts of one kind"):
        refuse_unlike(*pair)


def test_libvirt_encrypts_with_certificates_of_its_own_which_carry_the_hosts_name() -> None:
    libvirt = LibvirtPlace(LibvirtHost("b", "qemu:///system"))
    assert libvirt.credentials(None, HERE) == X509("", "")
    named = replace(HERE, certificate_name="c.example.org")
    assert libvirt.credentials(None, named) == X509("", "", "c.example.org")
    qemu = QemuPlace(ResidentHost("a", cast("Any", None)))
    assert qemu.credentials(None, QEMU) is None
    assert qemu.credentials(X509("/pki", "/pki"), QEMU) == X509("/pki", "/pki")


class Looked:
    """A host whose QEMU gives one answer after another."""

    name = "a"

    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = list(answers)

    async def look(self, vm: str, question: str) -> tuple[Any, ...]:
        assert (vm, question) == ("web", "query-migrate")
        return (self._answers.pop(0),)


async def looks(*answers: dict[str, Any]) -> list[Event]:
    place = QemuPlace(cast("ResidentHost", cast("Any", Looked(*answers))))
    return [each async for each in place.looks("web")]


async def test_a_qemu_is_asked_until_its_move_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whimbrel.cli.place.EVERY", 0.0)
    events = await looks({"status": "setup"}, {"status": "active"}, {"status": "completed"})
    assert [each.phase for each in events if isinstance(each, PhaseChange)] == [
        Phase.SETUP,
        Phase.PRECOPY,
        Phase.COMPLETED,
    ]
    with pytest.raises(ConfigError, match="not being moved now"):
        await looks({"status": "completed"})


class Off:
    """A libvirt host where nothing is found, or where what is found is not being moved."""

    name = "b"

    def __init__(self, found: object) -> None:
        self._found = found

    async def seek(self, name: str) -> object:
        assert name == "web"
        return self._found

    async def rejoin(self, machine: object) -> object:
        assert machine is self._found
        raise CommandRefused("No move is under way.")


@pytest.mark.parametrize("found", [None, Path()])
async def test_where_libvirt_moves_nothing_there_is_nothing_to_look_on_at(found: object) -> None:
    place = LibvirtPlace(cast("LibvirtHost", cast("Any", Off(found))))
    with pytest.raises(ConfigError, match="web on b is not being moved now"):
        [each async for each in place.looks("web")]
