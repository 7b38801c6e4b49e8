"""What QEMU tells a preflight: of a running VM, and of what a destination could build.

A running VM is asked over its own QMP connection, by questions only. For the destination a
QEMU without a machine is started there, asked over its standard input, and ended.

The features of the guest's CPU are read from the CPU itself, not from its model: what the
source's accelerator could not give (QEMU filters it and warns) is not missed elsewhere.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from whimbrel.errors import CommandRefused, ConfigError, ProtocolError
from whimbrel.hypervisors.qemu.command_line import BINARY, command_line
from whimbrel.hypervisors.qemu.machine import QemuMachine
from whimbrel.hypervisors.qemu.monitor import Monitor
from whimbrel.model.inventory import Vm
from whimbrel.model.preflight import DiskState, HypervisorFacts, MachineFacts
from whimbrel.ports import Machine, Site

_BALLOON = "virtio-balloon-pci"
_EXPANSION = "query-cpu-model-expansion"


class QemuExaminer:
    """The port's `Examiner` for plain QEMU.

    Args:
        site: The host, for what a new QEMU there can do.
    """

    def __init__(self, site: Site) -> None:
        self._site = site

    async def machine(self, machine: Machine) -> MachineFacts:
        """See `ports.Examiner.machine`."""
        if not isinstance(machine, QemuMachine):
            raise ConfigError(f"VM {machine.vm.name} is not held by plain QEMU.")
        try:
            return await machine_facts(machine.process.monitor, machine.vm)
        except (KeyError, TypeError, IndexError) as error:
            words = f"{machine.vm.name}: QEMU's answers lack what was expected: {error!r}"
            raise ProtocolError(words) from error

    async def hypervisor(self, vm: Vm) -> HypervisorFacts:
        """See `ports.Examiner.hypervisor`."""
        answers = await self._site.ask(
            "preflight_qemu", binary=BINARY, accelerator=vm.accelerator, commands=_QUESTIONS
        )
        try:
            return _hypervisor_facts([_returned(answer) for answer in answers])
        except (KeyError, TypeError, ValueError) as error:
            words = f"{self._site.name}: QEMU's answers lack what was expected: {error!r}"
            raise ProtocolError(words) from error

    async def ports(self) -> tuple[int, int] | None:
        """See `ports.Examiner.ports`."""
        return None


def _expansion(model: str) -> dict[str, Any]:
    # Only the static expansion is free of what is no CPU feature (levels, caches, "check").
    return {"type": "static", "model": {"name": model}}


_QUESTIONS: list[dict[str, Any]] = [
    {"execute": "query-version"},
    {"execute": "query-machines"},
    {"execute": "query-cpu-definitions"},
    {"execute": _EXPANSION, "arguments": _expansion("max")},
    {"execute": "qom-list-types", "arguments": {"implements": "device", "abstract": False}},
    {"execute": "device-list-properties", "arguments": {"typename": _BALLOON}},
]


def _returned(answer: Mapping[str, Any]) -> Any:
    if "error" in answer:
        raise CommandRefused(f"QEMU refused a question: {answer['error'].get('desc')}")
    return answer["return"]


def _hypervisor_facts(answers: Sequence[Any]) -> HypervisorFacts:
    version, machines, models, widest, devices, balloon = answers
    return HypervisorFacts(
        version=_version(version),
        package=version["package"],
        machine_types={each["name"]: int(each["cpu-max"]) for each in machines},
        cpu_models=frozenset(each["name"] for each in models),
        cpu_features=_true(widest["model"]["props"]),
        devices=frozenset(each["name"] for each in devices),
        free_page_hints="free-page-hint" in {each["name"] for each in balloon},
    )


def _version(answer: Mapping[str, Any]) -> tuple[int, int, int]:
    number = answer["qemu"]
    return int(number["major"]), int(number["minor"]), int(number["micro"])


def _true(properties: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(name for name, value in properties.items() if value is True)


async def machine_facts(monitor: Monitor, vm: Vm) -> MachineFacts:
    """Return what a running QEMU tells of its VM; raises `HostError` when it does not answer."""
    commands = ("query-version", "query-status", "query-migrate", "query-block")
    version, status, migration, blocks = await asyncio.gather(
        *(monitor.execute(command) for command in commands)
    )
    path = (await monitor.execute("query-cpus-fast"))[0]["qom-path"]
    model = str(await _property(monitor, path, "type")).removesuffix("-x86_64-cpu")
    machine_type = str(await _property(monitor, "/machine", "type"))
    devices = await _children(monitor, "/machine/peripheral", "/machine/peripheral-anon")
    objects = await _children(monitor, "/objects")
    plugged, unplugged = _changes(devices, vm)
    shared, huge_page = await _memory(monitor)
    return MachineFacts(
        version=_version(version),
        package=version["package"],
        machine_type=machine_type.removesuffix("-machine"),
        cpu_model=model,
        cpu_features=await _features(monitor, path, model),
        tsc_frequency=int(await _property(monitor, path, "tsc-frequency") or 0),
        state=status["status"],
        blocked=tuple(migration.get("blocked-reasons", ())),
        devices={name: kind for name, (kind, _) in devices.items()},
        objects={name: kind for name, (kind, _) in objects.items()},
        plugged=plugged,
        unplugged=unplugged,
        shared_memory=shared,
        huge_page=huge_page,
        tpm=await _tpm(monitor),
        jobs=await _jobs(monitor),
        migration=migration.get("status", ""),
        disks=tuple(_disks(blocks, vm)),
        free_page_hints=await _hints(monitor, devices),
    )


async def _property(monitor: Monitor, path: str, name: str) -> Any:
    """Return a property of one of QEMU's objects; None where it has none of that name."""
    with suppress(CommandRefused):
        return await monitor.execute("qom-get", {"path": path, "property": name})
    return None


async def _features(monitor: Monitor, path: str, model: str) -> frozenset[str]:
    """Return the features of a CPU; only those that its model or the accelerator has are asked."""
    names = {"invtsc"}
    for each in (model, "max"):
        with suppress(CommandRefused):
            expanded = await monitor.execute(_EXPANSION, _expansion(each))
            names |= _true(expanded["model"]["props"])
    ordered = sorted(names)
    values = await asyncio.gather(*(_property(monitor, path, name) for name in ordered))
    return frozenset(name for name, value in zip(ordered, values, strict=True) if value is True)


async def _children(monitor: Monitor, *places: str) -> dict[str, tuple[str, str]]:
    """Return kind and path of each of QEMU's objects below some places, by name."""
    found = {}
    for place in places:
        for entry in await monitor.execute("qom-list", {"path": place}):
            if entry["type"].startswith("child<"):
                kind = entry["type"].removeprefix("child<").removesuffix(">")
                found[entry["name"]] = (kind, f"{place}/{entry['name']}")
    return found


def _changes(
    devices: Mapping[str, tuple[str, str]], vm: Vm
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of devices that came, and the kinds of those that went, since the start."""
    if vm.words:
        return (), ()  # an adopted VM's words plug some unnamed; adoption has compared the others
    words = command_line(vm, PurePosixPath("/"), resident=True)
    built = Counter(value.partition(",")[0] for word, value in pairwise(words) if word == "-device")
    here = Counter(kind for kind, _ in devices.values())
    added = here - built
    came = []
    for name, (kind, _) in reversed(list(devices.items())):  # those plugged last are named last
        if added[kind] > 0:
            added[kind] -= 1
            came.append(name)
    return tuple(sorted(came)), tuple(sorted((built - here).elements()))


async def _hints(monitor: Monitor, devices: Mapping[str, tuple[str, str]]) -> bool:
    balloons = [path for kind, path in devices.values() if kind == _BALLOON]
    return any([await _property(monitor, path, "free-page-hint") for path in balloons])


async def _memory(monitor: Monitor) -> tuple[tuple[str, ...], int]:
    """Return the backends that other processes share, and the size of huge pages in use."""
    shared, huge_page = [], 0
    for backend in await monitor.execute("query-memdev"):
        name = backend.get("id", "")
        if backend.get("share"):
            shared.append(name)
        if name and await _property(monitor, f"/objects/{name}", "hugetlb"):
            size = await _property(monitor, f"/objects/{name}", "hugetlbsize")
            huge_page = int(size or 0) or (2 << 20)
    return tuple(shared), huge_page


async def _tpm(monitor: Monitor) -> tuple[str, ...]:
    with suppress(CommandRefused):  # a QEMU without TPM does not know the question
        return tuple(each["options"]["type"] for each in await monitor.execute("query-tpm"))
    return ()


async def _jobs(monitor: Monitor) -> tuple[str, ...]:
    jobs, exports = await asyncio.gather(
        monitor.execute("query-jobs"), monitor.execute("query-block-exports")
    )
    words = [f"{job['type']} {job['id']} ({job['status']})" for job in jobs]
    return (*words, *(f"export {each['id']} of {each['node-name']}" for each in exports))


def _disks(blocks: Sequence[Mapping[str, Any]], vm: Vm) -> Iterator[DiskState]:
    known = {disk.name: disk for disk in vm.disks}
    for block in blocks:
        inside = block.get("inserted")
        if inside is None:
            continue  # an empty drive
        name = inside.get("node-name") or block["device"]
        images = list(_chain(inside["image"]))
        top = str(images[0]["filename"])
        if not top.startswith("/") and name in known:
            top = known[name].path  # an address, as its owner wrote it
        size = int(inside["image"]["virtual-size"])
        yield DiskState(
            name=name,
            chain=(top, *(str(image["filename"]) for image in images[1:])),
            format=inside["drv"],
            size=size,
            allocated=min(size, sum(int(image.get("actual-size", 0)) for image in images)),
            read_only=bool(inside["ro"]),
            direct=bool(inside["cache"]["direct"]),
            no_flush=bool(inside["cache"]["no-flush"]),
            snapshots=tuple(each["name"] for each in inside["image"].get("snapshots", ())),
            bitmaps=tuple(each.get("name", "") for each in inside.get("dirty-bitmaps", ())),
        )


def _chain(image: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    while image is not None:
        yield image
        image = image.get("backing-image")
