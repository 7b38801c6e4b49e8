"""Between whimbrel's words for storage and QEMU's: requests one way, figures the other.

Sources: qapi/block-core.json, block-export.json and job.json of QEMU 10.0.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from whimbrel.model.inventory import MigrationAddress
from whimbrel.model.storage import (
    Copying,
    CopyMode,
    DiskFacts,
    DiskWrites,
    Extent,
    Image,
)

RECONNECT_DELAY = 10
"""Seconds that a copy waits for a broken connection to come back before it fails."""

PREFIX = "whimbrel-"
"""Before the names of what is made for a copy: nodes, jobs, exports."""

_FORMATS = {"raw": "raw", "qcow2": "qcow2"}
_LAYERS = frozenset({"file", "host_device", "nfs", "iscsi", "nbd"})


def server_arguments(
    host: str, port: int, connections: int, credentials: str = ""
) -> dict[str, Any]:
    """Return the arguments of nbd-server-start; `credentials` names an object, or nothing."""
    place = {"type": "inet", "data": {"host": host, "port": str(port)}}
    arguments: dict[str, Any] = {"addr": place, "max-connections": connections}
    return arguments | ({"tls-creds": credentials} if credentials else {})


def export_arguments(disk: str, node: str) -> dict[str, Any]:
    """Return the arguments of block-export-add: the disk's node, writable, by the disk's name."""
    return {
        "type": "nbd",
        "id": job_of(disk),
        "node-name": node,
        "name": disk,
        "writable": True,
    }


def client_node(
    name: str, disk: str, address: MigrationAddress, credentials: str = ""
) -> dict[str, Any]:
    """Return the node at a source through which an exported disk is written.

    Zeros become holes at the far end, whether the source knows of them as holes or finds them.
    """
    node: dict[str, Any] = {
        "driver": "nbd",
        "node-name": name,
        "server": {"type": "inet", "host": address.host, "port": str(address.port)},
        "export": disk,
        "reconnect-delay": RECONNECT_DELAY,
        "discard": "unmap",
        "detect-zeroes": "unmap",
    }
    if credentials:
        node["tls-creds"] = credentials
    if address.credentials:
        node["tls-hostname"] = address.credentials.hostname or address.host
    return node


def mirror_arguments(
    job: str, source: str, place: str, extent: Extent, rate: float | None
) -> dict[str, Any]:
    """Return the arguments of blockdev-mirror.

    The job stays known after its end (auto-dismiss off), so that its error cannot be missed.
    """
    return {
        "job-id": job,
        "device": source,
        "target": place,
        "sync": "full" if extent is Extent.WHOLE else "top",
        "speed": speed(rate),
        "on-source-error": "report",
        "on-target-error": "report",
        "copy-mode": CopyMode.BACKGROUND.value,
        "auto-dismiss": False,
    }


def job_of(disk: str) -> str:
    """Return the id of the job that copies a disk; a disk has one at most."""
    return f"{PREFIX}{disk}"


def speed(rate: float | None) -> int:
    """Return QEMU's speed for a limit in bytes per second; it reads 0 as none."""
    return 0 if rate is None else max(1, round(rate))


def copying_from(job: Mapping[str, Any], mode: CopyMode) -> Copying:
    """Read one entry of query-block-jobs; `len` is what was copied and what is left together."""
    done = int(job.get("offset", 0))
    return Copying(
        done=done,
        left=max(0, int(job.get("len", 0)) - done),
        ready=bool(job.get("ready")),
        mode=mode,
        failure=str(job.get("error", "")),
    )


def disks_from(
    devices: Sequence[Mapping[str, Any]], jobs: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> Iterator[DiskFacts]:
    """Read query-block and query-block-jobs: the named disks that are plugged, in that order."""
    for name in names:
        device = device_of(devices, name)
        if device is not None and "inserted" in device:
            yield _disk(name, device["inserted"], jobs)


def writes_from(
    devices: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> dict[str, DiskWrites]:
    """Read query-blockstats: the named disks that are plugged."""
    found = {}
    for name in names:
        device = device_of(devices, name)
        if device is not None:
            stats = device["stats"]
            found[name] = DiskWrites(int(stats["wr_bytes"]), int(stats["wr_operations"]))
    return found


def device_of(devices: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any] | None:
    """Find a disk's device in query-block: by the device's name, as a copy renames the node."""
    for device in devices:
        plugged = str(device.get("qdev", "")).split("/")
        if f"disk-{name}" in plugged or name in plugged or device.get("device") == name:
            return device
    return None


def top_node(device: Mapping[str, Any]) -> str:
    """Return the name of the node that a device of query-block writes to."""
    return str(device["inserted"]["node-name"])


def _disk(name: str, inserted: Mapping[str, Any], jobs: Sequence[Mapping[str, Any]]) -> DiskFacts:
    image = inserted["image"]
    # Another's job does not tell which disk it works on, so it is told of each.
    mine = [
        job
        for job in jobs
        if job["device"] == job_of(name) or not str(job["device"]).startswith(PREFIX)
    ]
    return DiskFacts(
        name=name,
        size=int(image["virtual-size"]),
        chain=tuple(_chain(image)),
        read_only=bool(inserted.get("ro")),
        busy=", ".join(f"{job['type']} {job['device']}" for job in mine),
    )


def _allocated(image: Mapping[str, Any]) -> int:
    """Return the bytes that an image takes: all of them where nobody tells, as on a device."""
    if str(image["filename"]).startswith("/dev/"):
        return int(image["virtual-size"])
    return int(image.get("actual-size", image["virtual-size"]))


def _chain(image: Mapping[str, Any]) -> Iterator[Image]:
    below: Mapping[str, Any] | None = image
    while below:
        told = str(below.get("format", "raw"))
        # What lies on a share is told as the layer that holds it; its format is raw then.
        yield Image(
            str(below["filename"]),
            "raw" if told in _LAYERS else _FORMATS.get(told, told),
            _allocated(below),
        )
        below = below.get("backing-image")
