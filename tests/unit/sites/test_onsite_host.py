"""What the program tells of the host it runs on: this machine, whatever it is."""

import os
import platform
import time
from pathlib import Path

import pytest

from whimbrel.sites.onsite import host, load


def test_the_facts_are_those_of_this_machine() -> None:
    told = host.facts()
    assert told["hostname"] == platform.node()
    assert told["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert told["network"] == Path("/proc/self/ns/net").stat().st_ino
    assert told["kernel"] == platform.release()
    assert told["python"] == platform.python_version()
    assert told["uid"] == os.getuid()
    assert told["cores"] == len(os.sched_getaffinity(0))
    assert abs(told["clock"] - time.time()) < 60
    assert 0 < told["spare_memory"] <= told["memory"]
    assert set(told["bridges"]) <= set(told["interfaces"])


def test_a_qemu_that_is_not_there_is_none() -> None:
    assert host.facts(qemu="no-such-qemu")["qemu"] is None


def test_qemus_version_is_read_from_what_it_says(tmp_path: Path) -> None:
    fake = tmp_path / "qemu"
    fake.write_text("#!/bin/sh\necho 'QEMU emulator version 10.0.2 (Debian 1:10.0.2)'\n")
    fake.chmod(0o755)
    assert host.facts(qemu=str(fake))["qemu"] == {"binary": str(fake), "version": "10.0.2"}
    fake.write_text("#!/bin/sh\necho something else\n")
    assert host.facts(qemu=str(fake))["qemu"] is None


def test_the_nodes_hold_all_cores() -> None:
    cores = [core for node in host.nodes() for core in node["cores"]]
    assert len(cores) == len(set(cores))
    assert not cores or set(os.sched_getaffinity(0)) <= set(cores)


def test_interfaces_are_those_that_the_kernel_lists() -> None:
    listed = host.counted(Path("/proc/thread-self/net/dev").read_text())
    assert set(host.interfaces()) == set(listed) - {"lo"}


def test_kernel_texts_are_read_in_bytes() -> None:
    text = "MemTotal:  12 kB\nHugePages_Free:  3\nNode 0 MemFree: 7 kB\n"
    assert host.sizes(text) == {"MemTotal": 12288, "HugePages_Free": 3, "MemFree": 7168}
    assert host.listed("0-2,5,8-9") == [0, 1, 2, 5, 8, 9]
    assert host.listed("") == []
    net = "x\ny\n  eth0: 10 1 0 0 0 0 0 0 20 2 0 0 0 0 0 0\n"
    assert host.counted(net) == {"eth0": (10, 20)}


def test_an_unknown_interface_has_no_rate() -> None:
    assert host.rate("nothing0") is None


def test_idle_time_never_runs_back_by_much() -> None:
    first, second = load.idle(), load.idle()
    assert second["at"] >= first["at"]
    assert second["idle"] >= first["idle"] - 0.1  # proc(5): it may be told a little less


def test_counters_never_run_backwards() -> None:
    first, second = (load.counters(os.getpid()) for _ in range(2))
    assert first["at"] < second["at"]
    for name, before in first["interfaces"].items():
        after = second["interfaces"][name]
        assert after["received"] >= before["received"]
        assert after["sent"] >= before["sent"]
    assert [core["core"] for core in first["cores"]] == [core["core"] for core in second["cores"]]
    assert all(
        later["busy"] >= sooner["busy"]
        for sooner, later in zip(first["cores"], second["cores"], strict=True)
    )
    assert second["process"]["cpu"] >= first["process"]["cpu"]
    assert second["process"]["resident"] > 1 << 20
    assert set(first["nodes"]) == {str(node["node"]) for node in host.nodes()}


def test_threads_of_one_name_are_counted_together() -> None:
    own = Path("/proc/self/comm").read_text().rstrip("\n")
    before = load.thread_seconds(os.getpid())
    busy_until = time.thread_time() + 0.05
    while time.thread_time() < busy_until:
        pass
    after = load.thread_seconds(os.getpid())
    assert after[own] - before[own] >= 0.03
    assert sum(after.values()) <= time.process_time() + 0.05


def test_a_process_that_is_gone_has_no_counters() -> None:
    assert load.counters(pid=2**22 + 1)["process"] is None
    assert load.counters()["process"] is None


def test_what_memory_costs_is_measured() -> None:
    told = load.cost(touched=16 << 20, sample=os.urandom(1 << 18))
    assert 1e-8 < told["copy"] < 1e-3
    assert 1e-8 < told["receive"] < 1e-3
    assert 1e-8 < told["scatter"] < 1e-3
    assert 0 <= told["touch"] < 1e-3
    assert told["deflate"] > 1e6
    assert load.cost(touched=0)["deflate"] == 0.0
    assert load.cost(touched=0)["touch"] == 0.0


@pytest.mark.parametrize("module", [host, load])
def test_every_answer_is_plain_data(module: object) -> None:
    questions = vars(module)["QUESTIONS"]
    for name in questions.keys() - {"cost", "thread_seconds"}:  # these are asked of something
        assert_plain(questions[name]())


def assert_plain(value: object) -> None:
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value)
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            assert_plain(each)
    else:
        assert value is None or isinstance(value, bool | int | float | str | bytes)
