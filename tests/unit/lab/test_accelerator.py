import os
import re
from pathlib import Path

import pytest

from whimbrel.errors import LabError
from whimbrel.lab.accelerator import Accelerator, choose_accelerator
from whimbrel.lab.image import Image
from whimbrel.model.scenario import AcceleratorChoice

BOOTS = 'echo noise; echo "whimbrel: guest is up"; exec sleep 60'
SILENT = "exec sleep 60"
DIES = 'echo "KVM internal error" >&2; exit 1'


class Machine:
    """A QEMU that behaves as its script says, and counts how often it was started."""

    def __init__(self, root: Path, script: str) -> None:
        self.root = root
        self.qemu = root / "qemu"
        self.qemu.write_text(f"#!/bin/sh\necho $$ >>{root}/started\n{script}\n")
        self.qemu.chmod(0o755)
        self.image = Image(root / "kernel", root / "initrd")
        self.image.kernel.write_bytes(b"kernel")
        (root / "kvm").touch()

    @property
    def started(self) -> list[int]:
        log = self.root / "started"
        return [int(line) for line in log.read_text().split()] if log.exists() else []

    def choose(
        self, wish: AcceleratorChoice, patience: float = 30.0, device: str = "kvm"
    ) -> Accelerator:
        return choose_accelerator(
            wish,
            self.image,
            qemu=str(self.qemu),
            device=self.root / device,
            patience=patience,
        )


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_kvm_counts_when_the_guests_first_line_comes(tmp_path: Path) -> None:
    machine = Machine(tmp_path, BOOTS)
    found = machine.choose(AcceleratorChoice.AUTO)
    assert found.name == "kvm"
    assert found.reason.startswith("kvm: boots Linux in ")
    assert found.arguments == ["-accel", "kvm"]


def test_a_silent_guest_means_tcg_and_the_reason_says_so(tmp_path: Path) -> None:
    found = Machine(tmp_path, SILENT).choose(AcceleratorChoice.AUTO, patience=0.3)
    assert found.name == "tcg"
    assert found.reason.endswith("opens but a guest did not print its first line in 0.3 s")
    assert found.arguments == ["-accel", "tcg,thread=multi"]


def test_a_qemu_that_dies_means_tcg_with_its_last_words(tmp_path: Path) -> None:
    found = Machine(tmp_path, DIES).choose(AcceleratorChoice.AUTO)
    assert found.name == "tcg"
    assert "KVM internal error" in found.reason


@pytest.mark.parametrize(("script", "patience"), [(BOOTS, 30.0), (SILENT, 2.0)])
def test_no_probe_outlives_the_question(tmp_path: Path, script: str, patience: float) -> None:
    machine = Machine(tmp_path, script)
    machine.choose(AcceleratorChoice.AUTO, patience=patience)
    assert len(machine.started) == 1
    assert not alive(machine.started[0])


def test_without_the_device_nothing_is_booted(tmp_path: Path) -> None:
    machine = Machine(tmp_path, BOOTS)
    assert machine.choose(AcceleratorChoice.AUTO, device="absent").reason.endswith(
        "absent is not there"
    )
    assert machine.started == []


def test_the_answer_is_remembered_until_the_guest_changes(tmp_path: Path) -> None:
    machine = Machine(tmp_path, BOOTS)
    first = machine.choose(AcceleratorChoice.AUTO)
    assert machine.choose(AcceleratorChoice.AUTO) == first
    assert len(machine.started) == 1
    machine.image.kernel.write_bytes(b"another kernel")
    machine.choose(AcceleratorChoice.AUTO)
    assert len(machine.started) == 2


def test_a_spoiled_memory_is_no_memory(tmp_path: Path) -> None:
    machine = Machine(tmp_path, BOOTS)
    machine.choose(AcceleratorChoice.AUTO)
    (tmp_path / "cache" / "whimbrel" / "accelerator.json").write_text('{"key":')
    assert machine.choose(AcceleratorChoice.AUTO).name == "kvm"


def test_who_insists_on_kvm_gets_it_or_an_error(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"KVM was asked for, but .*KVM internal error") as caught:
        Machine(tmp_path, DIES).choose(AcceleratorChoice.KVM)
    assert set(re.findall(r"--\S+", caught.value.hint)) == {"--accelerator"}


def test_who_asks_for_tcg_gets_it_without_a_boot(tmp_path: Path) -> None:
    machine = Machine(tmp_path, BOOTS)
    assert machine.choose(AcceleratorChoice.TCG).name == "tcg"
    assert machine.started == []


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(tmp_path, BOOTS)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LabError, match="setpriv cannot be started"):
        machine.choose(AcceleratorChoice.AUTO)
