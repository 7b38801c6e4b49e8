"""What becomes of answers and of refusals; the rules themselves: tests/unit/theory/checks."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from unit.practice.fakes import FakeMachine
from whimbrel.errors import CommandRefused, HostError, HostUnreachable
from whimbrel.model.check import Check, Result
from whimbrel.model.inventory import X509, Disk, MigrationAddress, Nic, Vm
from whimbrel.model.method import Transport, Tuning
from whimbrel.model.preflight import DiskState, HypervisorFacts, MachineFacts
from whimbrel.model.storage import EXPORT_PORTS, DiskFacts, Extent, Image
from whimbrel.ports import Machine
from whimbrel.practice.claims import Claims
from whimbrel.practice.preflight import PreflightSubject, preflight
from whimbrel.practice.preflight_storage import preflight_storage
from whimbrel.practice.storage_places import DiskCopy

Reply = Callable[..., Any]

VM = Vm("web", 1 << 28, disks=(Disk("vda", "/srv/vda.qcow2"),), nics=(Nic("lan", "br0"),))
RUNS = MachineFacts(
    version=(10, 0, 2),
    package="",
    machine_type="pc-q35-10.0",
    cpu_model="qemu64",
    cpu_features=frozenset({"nx"}),
    devices={"disk-vda": "virtio-blk-pci"},
    disks=(
        DiskState("vda", ("/srv/vda.qcow2", "/srv/base.qcow2"), size=1 << 30, allocated=1 << 20),
    ),
)
THERE = HypervisorFacts(
    version=(10, 0, 2),
    package="",
    machine_types={"pc-q35-10.0": 288},
    cpu_models=frozenset({"qemu64"}),
    cpu_features=frozenset({"nx"}),
    devices=frozenset({"virtio-blk-pci"}),
)
COPY = DiskCopy(
    DiskFacts("vda", 1 << 30, (Image("/srv/vda.qcow2", "qcow2", 1 << 20),)),
    Disk("vda", "/new/vda.qcow2"),
)
READ = {"regions": ["one"]}
"""What tells that a file was read."""

BRIDGE = {"driver": "bridge", "up": True, "mtu": 1500, "networks": ["10.1.0.0/24"], "stations": []}


def host(name: str) -> Mapping[str, Any]:
    return {
        "clock": time.time(),
        "boot_id": name,
        "machine_id": name,
        "network": "1",
        "folder": "8:1",
        "folder_private": True,
        "folder_writable": True,
        "cpus": 4,
        "cpu_model": "cpu",
        "clock_flags": [],
        "huge_pages": {},
        "uid": 0,
        "memlock": None,
        "kvm": False,
        "rdma": [],
        "mptcp": False,
        "mptcp_subflows": None,
        "vms": [],
        "marks": {},
        "files": {},
    }


def image(path: str, kind: str = "file") -> Mapping[str, Any]:
    return {
        "path": path,
        "real": path,
        "kind": kind,
        "size": 1 << 20,
        "writable": True,
        "folder_exists": True,
        "folder_writable": True,
        "free": 1 << 40,
        "volume": "8:1",
    }


@dataclass
class FakeSite:
    """A host that answers from a table; an error in it is raised."""

    name: str
    answers: dict[str, Reply | HostError] = field(default_factory=dict)
    asked: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    folder: str = "/run/whimbrel"

    def __post_init__(self) -> None:
        self.answers = {
            "preflight_host": lambda **_: host(self.name),
            "preflight_bridges": lambda names: dict.fromkeys(names, BRIDGE),
            "preflight_listen": lambda **_: {"port": 4444},
            "preflight_connect": lambda **_: {"seconds": 0.001, "from": "10.0.0.1"},
            "preflight_heard": lambda **_: True,
            "memory_left": lambda **_: {"free": 1 << 34, "claimed": 0, "claimants": []},
            "preflight_disk": image,
            "preflight_probe": lambda **_: True,
            "preflight_probe_seen": lambda **_: True,
            "preflight_probe_gone": lambda **_: None,
            **self.answers,
        }

    async def ask(self, question: str, *, within: float = 60.0, **arguments: Any) -> Any:
        self.asked.append((question, arguments))
        answer = self.answers[question]
        if isinstance(answer, HostError):
            raise answer
        return answer(**arguments)

    async def socket(self, path: str) -> Path:
        return Path(path)

    async def close(self) -> None:
        pass


@dataclass
class FakeExaminer:
    facts: MachineFacts | HostError = RUNS
    there: HypervisorFacts | HostError = THERE
    range: tuple[int, int] | None = None

    async def ports(self) -> tuple[int, int] | None:
        return self.range

    async def machine(self, machine: Machine) -> MachineFacts:
        if isinstance(self.facts, HostError):
            raise self.facts
        return self.facts

    async def hypervisor(self, vm: Vm) -> HypervisorFacts:
        if isinstance(self.there, HostError):
            raise self.there
        return self.there


def subject(
    a: Mapping[str, Reply | HostError] | None = None,
    b: Mapping[str, Reply | HostError] | None = None,
    examiner: FakeExaminer | None = None,
) -> PreflightSubject:
    examiner = examiner or FakeExaminer()
    return PreflightSubject(
        machine=FakeMachine(VM, pid=42),
        source=FakeSite("a", dict(a or {})),
        destination=FakeSite("b", dict(b or {})),
        source_examiner=examiner,
        destination_examiner=examiner,
        address=MigrationAddress("10.0.0.2"),
    )


def asked(site: Any, question: str) -> list[Mapping[str, Any]]:
    return [arguments for name, arguments in site.asked if name == question]


def result(checks: tuple[Check, ...], name: str) -> Result:
    [check] = [check for check in checks if check.name == name]
    return check.result


async def test_two_hosts_with_everything_in_order_pass_every_check() -> None:
    checks = await preflight(subject())
    assert [check for check in checks if check.result is not Result.PASS] == []
    assert len({check.name for check in checks}) == len(checks)


async def test_an_unreachable_destination_fails_and_what_the_source_tells_is_still_checked() -> (
    None
):
    broken = RUNS.disks[0]
    examiner = FakeExaminer(replace(RUNS, jobs=("backup",), disks=(broken,)))
    gone = HostUnreachable("no route to b")
    checks = await preflight(subject(b={"preflight_bridges": gone}, examiner=examiner))
    assert result(checks, "control") is Result.FAIL
    assert result(checks, "block jobs") is Result.FAIL
    assert "no route to b" in checks[0].detail


async def test_an_unreachable_source_is_an_error() -> None:
    gone = HostUnreachable("no route to a")
    with pytest.raises(HostUnreachable):
        await preflight(subject(a={"preflight_host": gone}))


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("preflight_listen", "migration address"),
        ("memory_left", "memory"),
        ("preflight_disk", "disk vda: same bytes"),
        ("preflight_probe_seen", "disk vda: same bytes"),
    ],
)
async def test_what_a_host_refuses_to_tell_fails_its_check_and_no_other(
    question: str, name: str
) -> None:
    checks = await preflight(subject(b={question: CommandRefused("not allowed")}))
    assert result(checks, name) is Result.FAIL
    assert result(checks, "clocks") is Result.PASS


async def test_a_machine_that_cannot_be_asked_fails() -> None:
    checks = await preflight(subject(examiner=FakeExaminer(facts=HostUnreachable("hangs"))))
    assert result(checks, "guest") is Result.FAIL


async def test_a_qemu_that_does_not_start_there_fails() -> None:
    checks = await preflight(subject(examiner=FakeExaminer(there=CommandRefused("no kvm"))))
    assert result(checks, "accelerator") is Result.FAIL


async def test_a_probe_is_removed_also_when_the_destination_fails() -> None:
    move = subject(b={"preflight_probe_seen": HostUnreachable("cut off")})
    await preflight(move)
    wrote, gone = (asked(move.source, name) for name in ("preflight_probe", "preflight_probe_gone"))
    assert {each["token"] for each in wrote} == {each["token"] for each in gone}
    assert len(wrote) == 2


async def test_the_destination_stops_listening_also_when_the_source_fails() -> None:
    move = subject(a={"preflight_connect": HostUnreachable("cut off")})
    checks = await preflight(move)
    assert result(checks, "migration address") is Result.FAIL
    assert len(asked(move.destination, "preflight_heard")) == 1


async def test_a_bridge_is_asked_for_on_both_hosts() -> None:
    def none(names: list[str]) -> Mapping[str, None]:
        return dict.fromkeys(names)

    checks = await preflight(subject(b={"preflight_bridges": none}))
    assert result(checks, "NIC lan") is Result.FAIL


async def test_a_disk_lies_where_the_arriving_vm_says() -> None:
    elsewhere = replace(VM, disks=(Disk("vda", "/mnt/vda.qcow2"),))
    move = replace(subject(), arrival=elsewhere)
    checks = await preflight(move)
    looked = {each["path"] for each in asked(move.destination, "preflight_disk")}
    assert looked == {"/mnt/vda.qcow2", "/srv/base.qcow2"}
    assert result(checks, "disk vda: same bytes") is Result.PASS


async def test_a_disk_that_is_copied_needs_room_and_no_share() -> None:
    move = replace(subject(), copies=(COPY,))
    assert isinstance(move.destination, FakeSite)
    move.destination.answers["preflight_disk"] = lambda path: image(path, "missing")
    checks = await preflight(move)
    names = {check.name for check in checks}
    assert "disk vda: same bytes" not in names
    assert result(checks, "disk vda: place") is Result.PASS
    assert result(checks, "room for copies") is Result.PASS


async def test_what_a_copied_top_image_rests_on_must_be_there() -> None:
    move = replace(subject(), copies=(replace(COPY, extent=Extent.TOP),))
    assert isinstance(move.destination, FakeSite)
    move.destination.answers["preflight_disk"] = lambda path: image(path, "missing")
    checks = await preflight(move)
    assert result(checks, "disk vda: base base.qcow2") is Result.FAIL


@pytest.mark.parametrize(("there", "wanted"), [("abc", Result.PASS), ("def", Result.FAIL)])
async def test_a_base_that_is_another_file_is_read_whole_on_both_hosts(
    there: str, wanted: Result
) -> None:
    def placed(path: str) -> Mapping[str, Any]:
        return image(path, "missing" if path.startswith("/new") else "file")

    answers: dict[str, Any] = {"preflight_disk": placed, "preflight_probe_seen": lambda **_: False}
    move = subject(
        a={"image_fingerprint": lambda **_: "abc"},
        b={**answers, "image_fingerprint": lambda **_: there},
    )
    checks = await preflight(replace(move, copies=(replace(COPY, extent=Extent.TOP),)))
    assert result(checks, "disk vda: base base.qcow2") is wanted
    for site in (move.source, move.destination):
        assert [each["path"] for each in asked(site, "image_fingerprint")] == ["/srv/base.qcow2"]


async def test_a_base_that_both_hosts_share_is_not_read() -> None:
    move = replace(subject(), copies=(replace(COPY, extent=Extent.TOP),))
    checks = await preflight(move)  # a question that the fakes do not know would raise
    assert result(checks, "disk vda: base base.qcow2") is Result.PASS


def listens(taken: set[int]) -> Reply:
    """A destination some of whose ports are somebody else's."""

    def listen(port: int, **_: Any) -> Mapping[str, Any]:
        return {"error": "EADDRINUSE", "words": ""} if port in taken else {"port": port or 4444}

    return listen


def within(ports: tuple[int, int], taken: set[int]) -> PreflightSubject:
    move = subject(b={"preflight_listen": listens(taken)})
    return replace(move, address=MigrationAddress("10.0.0.2", ports=ports))


async def test_the_way_is_tried_on_the_first_free_port_of_those_that_are_named() -> None:
    move = within((5000, 5003), taken={5000, 5001})
    checks = await preflight(move)
    assert result(checks, "migration address") is Result.PASS
    assert [each["port"] for each in asked(move.source, "preflight_connect")] == [5002]


async def test_a_range_in_which_every_port_is_taken_fails_and_is_named() -> None:
    checks = await preflight(within((5000, 5001), taken={5000, 5001}))
    [check] = [each for each in checks if each.name == "migration address"]
    assert check.result is Result.FAIL
    assert "Every port from 5000 to 5001" in check.detail


async def test_disks_that_are_copied_have_a_way_of_their_own_which_is_tried_too() -> None:
    def placed(path: str) -> Mapping[str, Any]:
        return image(path, "missing" if path.startswith("/new") else "file")

    def connect(port: int, **_: Any) -> Mapping[str, Any]:
        blocked = {"error": "ETIMEDOUT", "words": ""}
        return blocked if port == EXPORT_PORTS[0] else {"seconds": 0.001}

    move = subject(
        a={"preflight_connect": connect},
        b={"preflight_disk": placed, "preflight_listen": listens(set())},
    )
    checks = await preflight(replace(move, copies=(COPY,)))
    assert result(checks, "migration address") is Result.PASS
    assert result(checks, "disks' export") is Result.FAIL
    assert "disks' export" not in {each.name for each in await preflight(move)}


async def test_certificates_are_looked_for_at_both_ends() -> None:
    def files(path: str) -> Mapping[str, Any]:
        return {**image(path, "missing" if path.endswith("server-key.pem") else "file"), **READ}

    move = subject(a={"preflight_disk": files}, b={"preflight_disk": files})
    address = MigrationAddress("10.0.0.2", credentials=X509("/tls/a", "/tls/b"))
    checks = await preflight(replace(move, address=address))
    assert result(checks, "certificates on a") is Result.PASS
    assert result(checks, "certificates on b") is Result.FAIL
    assert not [each for each in await preflight(subject()) if "certificates" in each.name]


async def test_memory_in_huge_pages_is_asked_for_as_such() -> None:
    move = subject(examiner=FakeExaminer(replace(RUNS, huge_page=2 << 20)))
    await preflight(move)
    sizes = {each["page_size"] for each in asked(move.destination, "memory_left")}
    assert sizes == {0, 2 << 20}


async def test_transports_are_checked_where_they_are_wanted() -> None:
    plain = {check.name for check in await preflight(subject())}
    assert not {"RDMA", "MPTCP"} & plain
    special = replace(
        subject(),
        tuning=Tuning(transport=Transport.RDMA),
        address=MigrationAddress("10.0.0.2", mptcp=True),
    )
    checks = await preflight(special)
    assert result(checks, "RDMA") is Result.FAIL
    assert result(checks, "MPTCP") is Result.FAIL


async def test_whether_pages_may_be_pinned_is_asked_where_they_shall_go_uncopied() -> None:
    def pins(limit: int | None) -> PreflightSubject:
        told = {"limit": limit, "held": True, "may_be_raised": True}
        return replace(subject({"preflight_pins": lambda **_: told}), zero_copy=True)

    assert result(await preflight(pins(1 << 16)), "zero-copy") is Result.FAIL
    free = pins(None)
    assert result(await preflight(free), "zero-copy") is Result.PASS
    assert asked(free.source, "preflight_pins") == [{"pid": 42}]
    silent = replace(subject({"preflight_pins": CommandRefused("no")}), zero_copy=True)
    assert result(await preflight(silent), "zero-copy") is Result.FAIL
    copied = subject()
    assert "zero-copy" not in {each.name for each in await preflight(copied)}
    assert not asked(copied.source, "preflight_pins")


async def test_where_the_way_is_still_to_be_chosen_what_hinders_rdma_is_a_warning() -> None:
    def able(memlock: int | None) -> Mapping[str, Reply | HostError]:
        return {
            **with_rdma("eth1", "eth1", "10.0.0.2"),
            "preflight_host": lambda **_: {**host("x"), "rdma": ["r"], "memlock": memlock},
        }

    weighed = {
        memlock: replace(subject(able(None), able(memlock)), choosing=True)
        for memlock in (None, 1 << 16)
    }
    assert result(await preflight(weighed[None]), "RDMA") is Result.PASS
    checks = await preflight(weighed[1 << 16])
    assert result(checks, "RDMA") is Result.WARN
    [found] = [check for check in checks if check.name == "RDMA"]
    assert "only 64 KiB may be pinned" in found.detail
    without = replace(subject(able(None)), choosing=True)
    assert "RDMA" not in {check.name for check in await preflight(without)}


def with_rdma(nic: str, own: str, address: str) -> Mapping[str, Reply | HostError]:
    """Return the answers of a host with a device on a NIC, whose address is on another perhaps."""
    device = {"device": "rxe0", "port": 1, "active": True, "interfaces": [nic]}
    return {
        "preflight_host": lambda **_: {**host("x"), "rdma": ["rxe0"]},
        "rdma_ports": lambda: [device],
        "interfaces": lambda: {own: {"addresses": [f"{address}/24"]}},
        "link_route": lambda **_: address,
    }


@pytest.mark.parametrize(
    ("here", "there", "refused"),
    [("eth1", "eth1", ""), ("eth2", "eth1", "a reaches 10.0.0.2"), ("eth1", "eth2", "On b the")],
)
async def test_rdma_is_refused_where_the_nic_of_the_move_has_no_device(
    here: str, there: str, refused: str
) -> None:
    ends = with_rdma(here, "eth1", "10.0.0.1"), with_rdma(there, "eth1", "10.0.0.2")
    wanted = replace(subject(*ends), tuning=Tuning(transport=Transport.RDMA))
    [found] = [check for check in await preflight(wanted) if check.name == "RDMA"]
    assert found.result is (Result.FAIL if refused else Result.PASS)
    assert refused in found.detail
    weighed = replace(subject(*ends), choosing=True)
    [found] = [check for check in await preflight(weighed) if check.name == "RDMA"]
    assert found.result is (Result.WARN if refused else Result.PASS)


async def test_rdma_whose_devices_cannot_be_asked_for_is_not_begun() -> None:
    ends = with_rdma("eth1", "eth1", "10.0.0.1"), dict(with_rdma("eth1", "eth1", "10.0.0.2"))
    ends[1]["rdma_ports"] = HostError("b does not answer.")
    wanted = replace(subject(*ends), tuning=Tuning(transport=Transport.RDMA))
    [found] = [check for check in await preflight(wanted) if check.name == "RDMA"]
    assert found.result is Result.FAIL
    assert "b does not answer" in found.detail


@pytest.mark.parametrize("taken", [0, 1])
async def test_where_moves_arrive_at_certain_ports_the_way_to_one_of_them_is_tried(
    taken: int,
) -> None:
    def listen(port: int, **_: object) -> Mapping[str, Any]:
        return {"error": "EADDRINUSE"} if port < 50000 + taken else {"port": port}

    move = subject(b={"preflight_listen": listen}, examiner=FakeExaminer(range=(50000, 50001)))
    checks = await preflight(move)
    assert result(checks, "migration address") is Result.PASS
    tried = [each["port"] for each in asked(move.destination, "preflight_listen")]
    assert tried == list(range(50000, 50001 + taken))
    named = replace(move, address=MigrationAddress("10.0.0.2", 50001))
    await preflight(named)
    assert asked(named.destination, "preflight_listen")[-1]["port"] == 50001


async def test_a_firewall_is_to_be_opened_for_every_port_that_a_move_may_take() -> None:
    closed = {"preflight_connect": lambda **_: {"error": "ETIMEDOUT", "words": ""}}
    checks = await preflight(subject(a=closed, examiner=FakeExaminer(range=(50000, 50063))))
    [found] = [check for check in checks if check.name == "migration address"]
    assert found.result is Result.FAIL
    assert "dport 50000-50063 accept" in found.remedy


async def test_a_move_claims_memory_and_gives_it_up_whatever_happens() -> None:
    site = FakeSite("b", {"claim_memory": lambda **_: {}, "release_memory": lambda **_: True})
    with pytest.raises(RuntimeError):
        async with Claims(site, VM):
            raise RuntimeError
    [claimed], [released] = asked(site, "claim_memory"), asked(site, "release_memory")
    assert claimed["claim"] == released["claim"]
    assert claimed["wanted"] > VM.memory


async def test_a_claim_that_is_refused_leaves_none_behind() -> None:
    def refuse_pages(**arguments: Any) -> None:
        if not arguments["page_size"]:
            raise CommandRefused("b: 1 MiB are not free")

    site = FakeSite("b", {"claim_memory": refuse_pages, "release_memory": lambda **_: True})
    with pytest.raises(HostError, match="are not free"):
        async with Claims(site, VM, huge_page=2 << 20):
            pass
    made = {each["claim"] for each in asked(site, "claim_memory")}
    assert made == {each["claim"] for each in asked(site, "release_memory")}
    assert len(made) == 2


async def test_a_host_that_is_gone_does_not_keep_a_move_from_ending() -> None:
    gone = HostUnreachable("cut off")
    site = FakeSite("b", {"claim_memory": lambda **_: {}, "release_memory": gone})
    async with Claims(site, VM):
        pass
    assert len(asked(site, "release_memory")) == 1


async def test_a_disk_that_moves_alone_needs_a_free_place_and_no_second_host() -> None:
    site = FakeSite("a")
    site.answers["preflight_disk"] = lambda path: image(
        path, "missing" if path.startswith("/new") else "file"
    )
    checks = await preflight_storage(FakeMachine(VM, pid=42), site, FakeExaminer(), [COPY])
    assert {check.result for check in checks} == {Result.PASS}
    site.answers["preflight_disk"] = image
    checks = await preflight_storage(FakeMachine(VM, pid=42), site, FakeExaminer(), [COPY])
    assert result(checks, "disk vda: place") is Result.FAIL
