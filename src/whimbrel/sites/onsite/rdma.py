"""A host's RDMA devices, as the kernel lists them below /sys/class/infiniband."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

DEVICES = Path("/sys/class/infiniband")
NICS = Path("/sys/class/net")


def rdma_ports(devices: str = str(DEVICES), nics: str = str(NICS)) -> list[dict[str, Any]]:
    """Return every port of every RDMA device.

    Each with device, port, active, interfaces (the NICs over whose addresses it is reached; none:
    the kernel does not say), software (emulated over an ordinary NIC: rxe, siw) and rate (bytes
    per second that it says it carries; None: it does not say). What an emulated one says of its
    rate means nothing.
    """
    found = []
    for port in sorted(Path(devices).glob("*/ports/*")):
        device = port.parent.parent
        found.append(
            {
                "device": device.name,
                "port": int(port.name),
                "active": "ACTIVE" in _line(port / "state"),
                "interfaces": sorted(_of_port(port) or _of_card(device, Path(nics))),
                "software": not (device / "device").exists(),
                "rate": rate_of(_line(port / "rate")),
            }
        )
    return found


def _of_port(port: Path) -> set[str]:
    """Return the NICs that RoCE has addresses of: the port's own, and VLANs and bonds over it."""
    named = {_line(each) for each in port.glob("gid_attrs/ndevs/*")}
    return named - {""}  # most places of the table are empty, and cannot be read


def _of_card(device: Path, nics: Path) -> set[str]:
    """Return the NICs of the device's card, and those over them: InfiniBand and iWARP say no more.

    A bridge is left out: what has its address there is not reached by RDMA.
    """
    found: set[str] = set()
    waiting = [each.name for each in device.glob("device/net/*")]
    while waiting:
        name = waiting.pop()
        if name not in found and not (nics / name / "bridge").exists():
            found.add(name)
            waiting += [each.name[len("upper_") :] for each in (nics / name).glob("upper_*")]
    return found


def rate_of(line: str) -> float | None:
    """Read "100 Gb/sec (4X EDR)" as bytes per second; None for anything else."""
    with contextlib.suppress(ValueError, IndexError):
        figure, unit = line.split()[:2]
        if unit == "Gb/sec":
            return float(figure) * 1e9 / 8
    return None


def _line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


QUESTIONS = {"rdma_ports": rdma_ports}
