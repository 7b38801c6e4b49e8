"""A host's RDMA devices, as the kernel lists them below /sys/class/infiniband."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

DEVICES = Path("/sys/class/infiniband")


def rdma_ports(devices: str = str(DEVICES)) -> list[dict[str, Any]]:
    """Return every port of every RDMA device.

    Each with device, port, active, interface (the NIC that it belongs to; empty: none), software
    (emulated over an ordinary NIC: rxe, siw) and rate (bytes per second that it says it carries;
    None: it does not say). What an emulated one says of its rate means nothing.
    """
    found = []
    for port in sorted(Path(devices).glob("*/ports/*")):
        device = port.parent.parent
        found.append(
            {
                "device": device.name,
                "port": int(port.name),
                "active": "ACTIVE" in _line(port / "state"),
                "interface": _line(port / "gid_attrs" / "ndevs" / "0"),
                "software": not (device / "device").exists(),
                "rate": rate_of(_line(port / "rate")),
            }
        )
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
