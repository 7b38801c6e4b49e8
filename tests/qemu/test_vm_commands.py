"""`whimbrel up`, `vms`, `console` and `down` on this machine, with real QEMU."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from metal import write_disk
from whimbrel.cli import main
from whimbrel.cli.options import complete_hosts, complete_vms
from whimbrel.errors import ExitCode
from whimbrel.sites.onsite.machines import machine_list, machine_stop

pytestmark = pytest.mark.skipif(
    shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"
)

WHIMBREL = Path(sys.executable).parent / "whimbrel"
UNREACHABLE = '[hosts.gone]\nuri = "qemu+ssh://nobody@127.0.0.1:1"\n'
PATIENCE = 60.0

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with one host, this machine; what runs on it ends with the test."""
    with tempfile.TemporaryDirectory(prefix="vms-", dir="/tmp") as name:
        here = Path(name)
        monkeypatch.chdir(here)
        (here / "whimbrel.toml").write_text(
            f'[hosts.here]\nuri = "qemu:///local"\nfolder = "{here}/run"\n'
        )
        write_disk(here / "guest.img")
        (here / "web.toml").write_text(
            'memory = "16 MiB"\naccelerator = "tcg"\n[[disks]]\npath = "guest.img"\n'
        )
        try:
            yield here
        finally:
            for vm in machine_list(f"{here}/run"):
                machine_stop(f"{here}/run", vm["place"])


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command line there: code, output and errors."""
    assert Path.cwd() == folder

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["whimbrel", *words])
        code = main._run()
        said = capfd.readouterr()
        return code, said.out, said.err

    return command


def vms(run: Run) -> list[dict[str, Any]]:
    code, out, _ = run("vms", "--json")
    assert code == ExitCode.DONE
    document = json.loads(out)
    assert document["schema"] == "whimbrel.vms/1"
    found: list[dict[str, Any]] = document["vms"]
    return found


def until_printed(run: Run, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while what not in (told := run("console", "web", "--log"))[1]:
        assert told[0] == ExitCode.DONE
        assert time.monotonic() < deadline, f"never printed: {what}"


def alive(pid: int) -> bool:
    try:
        return b") Z" not in Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False


def test_a_vm_goes_up_is_seen_and_shuts_down(run: Run, folder: Path) -> None:
    assert run("up", "web.toml")[0] == ExitCode.DONE
    [vm] = vms(run)
    assert (vm["name"], vm["host"], vm["state"]) == ("web", "here", "running")
    assert (vm["memory"], vm["vcpus"]) == (16 << 20, 1)
    assert vm["disks"] == [str(folder / "guest.img")]
    assert vm["uptime"] >= 0
    assert not vm["moving"]
    assert run("vms")[1].splitlines()[1].split()[:3] == ["web", "here", "running"]
    until_printed(run, "up")
    code, out, _ = run("down", "web")
    assert (code, out[:22]) == (ExitCode.DONE, "web on here: shut down")
    assert not alive(vm["pid"])
    assert vms(run) == []
    assert not (folder / "run/vms/web").exists()
    assert (folder / "guest.img").exists()


def test_a_vm_outlives_whimbrel_and_is_seen_by_the_next(run: Run) -> None:
    done = subprocess.run([WHIMBREL, "up", "web.toml", "--json"], capture_output=True, check=True)
    told = json.loads(done.stdout)
    assert told["schema"] == "whimbrel.up/1"
    assert (told["vm"], told["host"], told["accelerator"]) == ("web", "here", "tcg")
    assert re.fullmatch(r"pc-q35-[\d.]+", told["machine"])
    [vm] = vms(run)
    assert (vm["pid"], vm["state"]) == (told["pid"], "running")
    code, out, _ = run("down", "web", "--now", "--json")
    assert code == ExitCode.DONE
    assert json.loads(out)["ended"] == "ended"
    assert not alive(told["pid"])


def test_a_second_vm_of_a_name_is_refused(run: Run) -> None:
    run("up", "web.toml")
    code, _, err = run("up", "web.toml", "--on", "here")
    assert code == ExitCode.HOST
    assert "There is a VM web on here already (running)." in err
    assert "whimbrel down web --on here" in err


def test_a_vm_in_a_move_is_left_alone(run: Run, folder: Path) -> None:
    run("up", "web.toml")
    (folder / "run/moves").mkdir(mode=0o700)
    (folder / "run/moves/web.json").write_text("{}")
    for words in (["down", "web"], ["down", "web", "--now"]):
        code, _, err = run(*words)
        assert code == ExitCode.HOST
        assert "whimbrel recover web" in err
    [vm] = vms(run)
    assert vm["moving"]
    assert alive(vm["pid"])
    os.kill(vm["pid"], signal.SIGKILL)
    code, _, err = run("up", "web.toml")
    assert (code, "its mark is on here" in err) == (ExitCode.HOST, True)


def test_a_guest_that_heeds_no_button_goes_on_and_that_is_said(run: Run, folder: Path) -> None:
    (folder / "guest.img").write_bytes(bytes(1 << 20))  # nothing to boot
    run("up", "web.toml")
    code, _, err = run("down", "web", "--within", "300 ms")
    assert code == ExitCode.HOST
    assert "web did not shut down within 300 ms; it runs on here still." in err
    assert "--now" in err
    assert vms(run)[0]["state"] == "running"


def test_a_qemu_that_hangs_is_ended_by_force(run: Run) -> None:
    run("up", "web.toml")
    [vm] = vms(run)
    os.kill(vm["pid"], signal.SIGSTOP)
    assert vms(run)[0]["state"] == "unknown"
    code, _, err = run("down", "web")
    assert (code, "does not answer" in err) == (ExitCode.HOST, True)
    assert run("down", "web", "--now")[0] == ExitCode.DONE
    assert not alive(vm["pid"])


def test_what_a_killed_vm_leaves_is_seen_and_cleared(run: Run, folder: Path) -> None:
    run("up", "web.toml")
    [vm] = vms(run)
    os.kill(vm["pid"], signal.SIGKILL)
    while alive(vm["pid"]):
        time.sleep(0.005)
    assert vms(run)[0]["state"] == "ended"
    assert run("down", "web")[0] == ExitCode.DONE
    assert not (folder / "run/vms/web").exists()
    run("up", "web.toml")
    assert vms(run)[0]["state"] == "running"


def test_one_unreachable_host_holds_up_no_other(run: Run, folder: Path) -> None:
    run("up", "web.toml")
    config = folder / "whimbrel.toml"
    config.write_text(config.read_text() + UNREACHABLE)
    code, out, err = run("hosts", "--json")
    assert code == ExitCode.HOST
    here, gone = json.loads(out)["hosts"]
    assert here["qemu"]
    assert [vm["name"] for vm in here["vms"]] == ["web"]
    assert "no SSH connection" in gone["unreachable"]
    assert "ssh -p 1 nobody@127.0.0.1 true" in err
    code, out, err = run("vms")
    assert code == ExitCode.HOST
    assert out.splitlines()[1].startswith("web")
    assert run("down", "web", "--now")[0] == ExitCode.DONE


def test_a_vm_is_not_started_where_it_may_run_elsewhere(run: Run, folder: Path) -> None:
    config = folder / "whimbrel.toml"
    config.write_text(config.read_text() + UNREACHABLE)
    code, _, err = run("up", "web.toml", "--on", "here")
    assert code == ExitCode.HOST
    assert "gone cannot be asked, so it is not known whether web runs there" in err
    assert not (folder / "run/vms").exists()
    assert run("up", "web.toml", "--on", "here", "--skip-unreachable")[0] == ExitCode.DONE
    code, _, err = run("down", "wed")
    assert code == ExitCode.HOST
    assert "on here; gone cannot be asked" in err


def test_names_are_checked_before_anything_is_done(run: Run) -> None:
    code, _, err = run("up", "web.toml", "--on", "her")
    assert (code, 'Did you mean "here"?' in err) == (ExitCode.CONFIG, True)
    run("up", "web.toml")
    code, _, err = run("down", "wed")
    assert (code, 'Did you mean "web"?' in err) == (ExitCode.CONFIG, True)
    assert vms(run)[0]["state"] == "running"


def test_where_kvm_does_not_run_a_vm_tcg_does(run: Run, folder: Path) -> None:
    file = folder / "web.toml"
    file.write_text(file.read_text().replace('"tcg"', '"auto"'))
    code, out, _ = run("up", "web.toml")
    assert code == ExitCode.DONE
    assert re.search(r", (kvm|tcg), pid", out)
    assert vms(run)[0]["state"] == "running"


def test_a_vm_started_by_hand_is_seen_and_never_ended(run: Run, folder: Path) -> None:
    socket = folder / "qmp"
    words = ["qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none", "-S"]
    words += ["-name", "old", "-m", "32", "-qmp", f"unix:{socket},server=on,wait=off"]
    config = folder / "whimbrel.toml"
    config.write_text(config.read_text() + f'sockets = ["{socket}"]\n')
    with subprocess.Popen(words) as process:
        try:
            while not socket.exists():
                time.sleep(0.005)
            [vm] = vms(run)
            assert (vm["name"], vm["state"], vm["memory"]) == ("old", "paused", 32 << 20)
            assert (vm["by_hand"], vm["pid"]) == (True, process.pid)
            code, _, err = run("down", "old", "--now")
            assert code == ExitCode.CONFIG
            assert "started by hand" in err
            assert process.poll() is None
        finally:
            process.kill()
    assert vms(run)[0]["state"] == "unknown"


def test_shells_complete_hosts_and_vms(run: Run) -> None:
    run("up", "web.toml")

    class Typed:
        params: dict[str, Any] = {"config": None}  # noqa: RUF012 - as click has it

    assert complete_hosts(Typed(), "h") == ["here"]  # type: ignore[arg-type]
    assert complete_vms(Typed(), "w") == ["web"]  # type: ignore[arg-type]
    assert complete_vms(Typed(), "x") == []  # type: ignore[arg-type]
    Path("whimbrel.toml").write_text("[hosts")
    assert complete_vms(Typed(), "") == []  # type: ignore[arg-type]


def read_until(terminal: int, wanted: bytes) -> bytes:
    heard = b""
    while wanted not in heard:
        ready, _, _ = select.select([terminal], [], [], PATIENCE)
        assert ready, f"{wanted!r} never came, only {heard!r}"
        heard += os.read(terminal, 4096)
    return heard


def test_a_console_is_typed_into_until_the_key_that_leaves(run: Run) -> None:
    run("up", "web.toml")
    until_printed(run, "up")
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    with subprocess.Popen(
        [WHIMBREL, "console", "web"], stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        try:
            assert b"up" in read_until(ours, b"leaves.")
            while termios.tcgetattr(theirs) == before:
                time.sleep(0.005)
            os.write(ours, b"hello \x03 there")
            read_until(ours, b"hello \x03 there")  # Ctrl-C is the guest's
            os.write(ours, b"\x1d")
            assert process.wait(PATIENCE) == ExitCode.DONE
            assert termios.tcgetattr(theirs) == before
        finally:
            process.kill()
            os.close(ours)
            os.close(theirs)
    assert vms(run)[0]["state"] == "running"


def test_a_console_takes_what_is_piped_into_it(run: Run) -> None:
    run("up", "web.toml")
    until_printed(run, "up")
    with subprocess.Popen(
        [WHIMBREL, "console", "web"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(b"hello")
            process.stdin.flush()
            assert b"hello" in read_until(process.stdout.fileno(), b"hello")
            assert run("down", "web")[0] == ExitCode.DONE
            assert process.wait(PATIENCE) == ExitCode.DONE
        finally:
            process.kill()
