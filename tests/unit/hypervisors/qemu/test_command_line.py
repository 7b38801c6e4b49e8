from dataclasses import replace
from pathlib import Path

from whimbrel.hypervisors.qemu.command_line import channel_socket, command_line, monitor_socket
from whimbrel.model.inventory import Vm
from whimbrel.model.method import PreparedMemory

FOLDER = Path("/run/x")
VM = Vm("vm", 1 << 30, channels=("one", "two"))


def test_both_sides_build_the_same_devices() -> None:
    source = command_line(VM, FOLDER)
    destination = command_line(VM, FOLDER, incoming=True)
    assert destination == [*source, "-incoming", "defer", "-S"]


def test_prepared_memory_changes_the_backend_and_nothing_else() -> None:
    plain, prepared = command_line(VM, FOLDER), command_line(VM, FOLDER, PreparedMemory(3))
    different = [(a, b) for a, b in zip(plain, prepared, strict=True) if a != b]
    assert len(different) == 1
    assert different[0][1] == f"{different[0][0]},prealloc=on,prealloc-threads=3"


def test_every_socket_lies_in_the_private_folder() -> None:
    words = " ".join(command_line(VM, FOLDER))
    assert str(monitor_socket(FOLDER)) in words
    assert str(channel_socket(FOLDER, 1)) in words
    assert "tcp" not in words.replace("tcg", "")


def test_a_comma_in_a_path_does_not_end_the_option() -> None:
    words = command_line(VM, Path("/run/a,b"))
    assert any("path=/run/a,,b/qmp" in word for word in words)


def test_free_page_hints_bring_a_balloon() -> None:
    assert not any("balloon" in word for word in command_line(VM, FOLDER))
    hinted = command_line(replace(VM, free_page_hints=True), FOLDER)
    assert any("free-page-hint=on" in word for word in hinted)


def test_qemu_is_confined_and_gets_nothing_by_default() -> None:
    words = command_line(VM, FOLDER)
    assert {"-nodefaults", "-no-user-config", "-sandbox"} <= set(words)
