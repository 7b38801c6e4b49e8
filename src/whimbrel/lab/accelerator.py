"""Which accelerator runs the lab's guests: KVM where it really boots Linux, else TCG.

A /dev/kvm that opens proves little: inside some virtual machines it cannot run a Linux guest. So
KVM counts only when the guest's first line arrives on its serial console.
"""

import hashlib
import json
import os
import selectors
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from whimbrel.errors import LabError
from whimbrel.lab.image import Image
from whimbrel.lab.kernel import Progress, cache_folder, published, quiet
from whimbrel.model.scenario import AcceleratorChoice

FIRST_LINE = b"whimbrel: guest is up"
PATIENCE = 5.0
"""Seconds a guest under KVM gets for its first line; it needs about one."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ARGUMENTS = {"kvm": ["-accel", "kvm"], "tcg": ["-accel", "tcg,thread=multi"]}


@dataclass(frozen=True)
class Accelerator:
    """What guests run under.

    Attributes:
        name: "kvm" or "tcg".
        reason: Why this one, for people: "kvm: boots Linux in 0.8 s".
    """

    name: str
    reason: str

    @property
    def arguments(self) -> list[str]:
        """QEMU's arguments for it."""
        return list(_ARGUMENTS[self.name])


@dataclass(frozen=True)
class Probe:
    """How a probing boot ended.

    Attributes:
        seconds: Time to the guest's first line; None when it did not come.
        failure: Why it did not come; empty when it did.
    """

    seconds: float | None
    failure: str = ""


def choose_accelerator(
    wish: AcceleratorChoice,
    image: Image,
    *,
    qemu: str = "qemu-system-x86_64",
    device: Path = Path("/dev/kvm"),
    patience: float = PATIENCE,
    progress: Progress = quiet,
) -> Accelerator:
    """Return the accelerator to use; the answer for this boot of the machine is remembered.

    Args:
        wish: `AUTO` takes KVM when it boots this guest; `KVM` insists on it.
        image: The guest that must boot.
        qemu: The QEMU program.
        device: KVM's device.
        patience: Seconds the guest gets for its first line.
        progress: Is told what takes long.

    Raises:
        LabError: KVM was insisted on and does not boot the guest, or QEMU is missing.
    """
    if wish is AcceleratorChoice.TCG:
        return Accelerator("tcg", "tcg: asked for")
    key = _key(image, qemu, device, patience)
    found = _remembered(key)
    if found is None:
        progress("trying whether KVM boots a guest")
        found = _tried(image, qemu, device, patience)
        _remember(key, found)
    if wish is AcceleratorChoice.KVM and found.name != "kvm":
        raise LabError(
            f"KVM was asked for, but {found.reason.removeprefix('tcg: ')}.",
            "Use --accelerator tcg or --accelerator auto.",
        )
    return found


def _tried(image: Image, qemu: str, device: Path, patience: float) -> Accelerator:
    if not os.access(device, os.R_OK | os.W_OK):
        absent = "cannot be opened" if device.exists() else "is not there"
        return Accelerator("tcg", f"tcg: {device} {absent}")
    probe = boot_probe([qemu, *_ARGUMENTS["kvm"]], image, patience)
    if probe.seconds is None:
        return Accelerator("tcg", f"tcg: {device} opens but {probe.failure}")
    return Accelerator("kvm", f"kvm: boots Linux in {probe.seconds:.1f} s")


def boot_probe(command: list[str], image: Image, patience: float) -> Probe:
    """Boot the guest and wait for its first line; the QEMU process is gone on return.

    Raises:
        LabError: QEMU (or setpriv) cannot be started.
    """
    began = time.monotonic()
    heard = b""
    with _guest(command, image) as process:
        for heard in _output(process, began + patience):
            if FIRST_LINE in heard:
                return Probe(time.monotonic() - began)
    if time.monotonic() < began + patience:
        last = heard.decode(errors="replace").strip().rpartition("\n")[2]
        return Probe(None, f"QEMU ended before the guest's first line ({last[:200]})")
    return Probe(None, f"a guest did not print its first line in {patience:g} s")


@contextmanager
def _guest(command: list[str], image: Image) -> Iterator[subprocess.Popen[bytes]]:
    # With pdeathsig the guest does not outlive this process, even after a kill -9.
    words = ["setpriv", "--pdeathsig", "KILL", "--", *command, "-M", "q35", "-nodefaults"]
    words += ["-display", "none", "-no-reboot", "-m", "128", "-serial", "stdio", *image.arguments]
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        raise LabError(
            f"{words[0]} cannot be started: {error.strerror}.", "Install util-linux."
        ) from error
    with process:
        try:
            yield process
        finally:
            process.kill()


def _output(process: subprocess.Popen[bytes], deadline: float) -> Iterator[bytes]:
    """Yield all that was heard so far, each time more comes, until the end or the deadline."""
    heard = b""
    with selectors.DefaultSelector() as selector:
        if process.stdout is None:
            return
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if not selector.select(left):
                continue
            data = os.read(process.stdout.fileno(), 4096)
            if not data:
                return
            heard += data
            yield heard


def _key(image: Image, qemu: str, device: Path, patience: float) -> str:
    boot = _BOOT_ID.read_text() if _BOOT_ID.exists() else ""
    kernel = hashlib.sha256(image.kernel.read_bytes()).hexdigest()
    facts = (boot, kernel, image.initrd.name, qemu, str(device), patience)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _memory() -> Path:
    return cache_folder() / "accelerator.json"


def _remembered(key: str) -> Accelerator | None:
    try:
        held = json.loads(_memory().read_text())
        return Accelerator(held["name"], held["reason"]) if held["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # nothing there, or nothing that can be read: try again


def _remember(key: str, found: Accelerator) -> None:
    with published(_memory()) as place:
        place.write_text(json.dumps({"key": key, **asdict(found)}))
