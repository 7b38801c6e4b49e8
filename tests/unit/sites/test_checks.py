"""What hosts tell a preflight, asked of this machine itself."""

import errno
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from whimbrel.sites.onsite import checks, checks_disks, checks_network, checks_qemu

TOKEN = "ab" * 16
HERE = "127.0.0.1"


def test_a_host_tells_who_it_is_and_changes_nothing(tmp_path: Path) -> None:
    boot_file = tmp_path / "vmlinuz"
    boot_file.write_bytes(b"kernel")
    folder = tmp_path / "whimbrel"
    told = checks.preflight_host(str(folder), [str(boot_file), "/no/such/file"])
    assert told["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert told["files"]["/no/such/file"] is None
    assert told["files"][str(boot_file)]["size"] == 6
    assert told["folder_private"]
    assert told["folder_writable"]
    assert not folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is held to no limit")
def test_a_process_is_told_with_its_limit_and_whether_it_is_held_to_it() -> None:
    limited = ["prlimit", "--memlock=65536:", "sh", "-c", "echo there; exec cat"]
    found = []
    for words in (limited, ["setpriv", "--bounding-set=-ipc_lock", *limited]):
        pipe = subprocess.PIPE
        with subprocess.Popen(words, stdin=pipe, stdout=pipe) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"there\n"
            told = checks.preflight_pins(process.pid)
            found.append((told["limit"], told["held"]))
            process.kill()
    assert found == [(65536, False), (65536, True)]


def test_of_a_process_that_has_gone_nothing_is_known_to_be_allowed() -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    assert checks.preflight_pins(process.pid)["limit"] == 0


def test_a_folder_that_others_can_read_is_not_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    assert not checks.preflight_host(str(tmp_path), [])["folder_private"]
    tmp_path.chmod(0o700)
    assert checks.preflight_host(str(tmp_path), [])["folder_private"]


def test_a_host_lists_vms_with_their_process_and_the_marks_of_moves(tmp_path: Path) -> None:
    start = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
    for name, begun in (("lives", start), ("ended", start + 1)):
        home = tmp_path / "vms" / name
        home.mkdir(parents=True)
        (home / "vm.json").write_text(f'{{"pid": {os.getpid()}, "start": {begun}}}')
    (tmp_path / "moves").mkdir()
    (tmp_path / "moves/left.json").write_text('{"move": "7"}')
    told = checks.preflight_host(str(tmp_path), [])
    vms = {each["name"]: each for each in told["vms"]}
    assert vms["lives"]["pid"] == os.getpid()
    assert vms["ended"]["pid"] is None
    assert told["marks"] == {"left": {"move": "7"}}


def test_a_destination_hears_the_one_who_knows_the_token_and_listens_no_more() -> None:
    port = checks_network.preflight_listen(HERE, 0, TOKEN)["port"]
    with socket.create_connection((HERE, port)) as stranger:
        stranger.sendall(b"x" * len(TOKEN))
    assert "seconds" in checks_network.preflight_connect(HERE, port, TOKEN)
    assert checks_network.preflight_heard(TOKEN)
    assert checks_network.preflight_connect(HERE, port, TOKEN)["error"] == "ECONNREFUSED"
    assert not checks_network.preflight_heard(TOKEN)


def test_a_stranger_is_not_taken_for_the_source() -> None:
    port = checks_network.preflight_listen(HERE, 0, TOKEN)["port"]
    checks_network.preflight_connect(HERE, port, "cd" * 16)
    assert not checks_network.preflight_heard(TOKEN, patience=0.1)


def test_what_cannot_be_listened_at_is_named() -> None:
    with socket.create_server((HERE, 0)) as taken:
        port = taken.getsockname()[1]
        refused = checks_network.preflight_listen(HERE, port, TOKEN)
    assert refused["error"] == errno.errorcode[errno.EADDRINUSE]
    # TEST-NET-1 (RFC 5737): nobody's address.
    assert checks_network.preflight_listen("192.0.2.1", 0, TOKEN)["error"] == "EADDRNOTAVAIL"


def test_an_interface_that_is_not_there_is_none_and_loopback_is_no_bridge() -> None:
    told = checks_network.preflight_bridges(["lo", "no-such", "a-name-that-is-too-long", ""])
    assert told["lo"]["driver"] not in {"bridge", "openvswitch"}
    assert told["no-such"] is None
    assert told["a-name-that-is-too-long"] is None
    assert told[""] is None


def test_an_image_is_told_with_its_place(tmp_path: Path) -> None:
    image = tmp_path / "d.img"
    image.write_bytes(b"boot" + bytes(1 << 20))
    link = tmp_path / "link.img"
    link.symlink_to(image)
    told = checks_disks.preflight_disk(str(link))
    assert told["kind"] == "file"
    assert told["real"] == str(image)
    assert told["size"] == (1 << 20) + 4
    assert told["regions"][0]
    assert set(told["regions"][1:]) == {""}
    assert told["writable"]
    assert told["free"] > 0
    assert told["file_system"]


def test_what_is_missing_is_told_with_the_folder_it_would_lie_in(tmp_path: Path) -> None:
    told = checks_disks.preflight_disk(str(tmp_path / "d.img"))
    assert told["kind"] == "missing"
    assert told["folder_exists"]
    assert not checks_disks.preflight_disk(str(tmp_path / "no/d.img"))["folder_exists"]
    assert checks_disks.preflight_disk(str(tmp_path))["kind"] == "other"


def test_looking_at_an_image_does_not_change_it(tmp_path: Path) -> None:
    image = tmp_path / "d.img"
    image.write_bytes(b"x" * 100000)
    before = image.stat()
    checks_disks.preflight_disk(str(image))
    after = image.stat()
    assert (after.st_mtime_ns, after.st_size) == (before.st_mtime_ns, before.st_size)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    image = tmp_path / "d.img"
    image.write_bytes(b"x")
    script = f"exec 3<>{image}; exec 4<{image}; echo ready; read line"
    pipe = subprocess.PIPE
    with subprocess.Popen(["sh", "-c", script], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield image, process
        process.kill()


def test_who_has_an_image_open_for_writing_is_named(
    holder: tuple[Path, subprocess.Popen[bytes]],
) -> None:
    image, process = holder
    [found] = checks_disks.preflight_disk(str(image))["holders"]
    assert found["pid"] == process.pid


def test_who_only_reads_an_image_does_not_hold_it(tmp_path: Path) -> None:
    image = tmp_path / "d.img"
    image.write_bytes(b"x")
    with image.open("rb") as read, subprocess.Popen(["sleep", "60"], stdin=read) as process:
        assert checks_disks.preflight_disk(str(image))["holders"] == []
        process.kill()


def test_a_probe_is_seen_in_its_folder_and_is_gone_afterwards(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    assert checks_disks.preflight_probe(str(here), TOKEN)
    assert checks_disks.preflight_probe_seen(str(here), TOKEN)
    assert not checks_disks.preflight_probe_seen(str(there), TOKEN)
    checks_disks.preflight_probe_gone(str(here), TOKEN)
    checks_disks.preflight_probe_gone(str(here), TOKEN)
    assert list(here.iterdir()) == []


def test_a_probe_that_a_killed_preflight_left_is_removed_by_the_next(tmp_path: Path) -> None:
    old = tmp_path / ".whimbrel-probe-old"
    fresh = tmp_path / ".whimbrel-probe-fresh"
    for path in (old, fresh):
        path.write_text("x")
    os.utime(old, (time.time() - 3600,) * 2)
    checks_disks.preflight_probe(str(tmp_path), TOKEN)
    assert not old.exists()
    assert fresh.exists()


def test_a_probe_is_not_written_where_there_is_no_folder_or_beyond_it(tmp_path: Path) -> None:
    assert not checks_disks.preflight_probe(str(tmp_path / "no"), TOKEN)
    with pytest.raises(ValueError, match="hexadecimal"):
        checks_disks.preflight_probe(str(tmp_path), "../../etc/passwd")


def test_an_address_that_qemu_cannot_open_is_told_in_its_words(tmp_path: Path) -> None:
    refused = checks_disks.preflight_image(str(tmp_path / "no.img"))
    assert "no.img" in refused["words"]
    image = tmp_path / "d.img"
    image.write_bytes(bytes(4096))
    assert checks_disks.preflight_image(str(image)) == {"size": 4096}


def test_a_qemu_answers_each_question_in_order_and_ends() -> None:
    version, unknown = checks_qemu.preflight_qemu(
        "qemu-system-x86_64", "tcg", [{"execute": "query-version"}, {"execute": "no-such"}]
    )
    assert version["return"]["qemu"]["major"] > 0
    assert unknown["error"]["class"] == "CommandNotFound"


def test_a_qemu_that_does_not_start_says_why() -> None:
    with pytest.raises(RuntimeError, match="no-such"):
        checks_qemu.preflight_qemu("qemu-system-x86_64", "no-such", [{"execute": "query-version"}])
