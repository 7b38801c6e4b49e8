"""Which threads of a QEMU are held to a budget, on which cores, and that all of it is undone."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.sites.onsite import budget
from whimbrel.sites.onsite.budget import NICE, Quota, best_cores, moving_threads

NAMED = {
    7: "qemu-system-x86",
    8: "CPU 0/TCG",
    9: "IO io",
    10: "mig/src/main",
    11: "mig/src/send_0",
    12: "mig/src/rp-thr",
}


def test_threads_that_are_named_are_told_by_their_names() -> None:
    assert moving_threads(NAMED, 7) == {10, 11, 12}


@pytest.mark.parametrize(
    "name", ["mig/dst/recv_0", "live_migration", "multifdrecv_1", "return path", "postcopy/liste"]
)
def test_the_names_of_older_versions_are_known(name: str) -> None:
    assert moving_threads({1: "qemu", 2: "CPU 0/KVM", 3: name}, 1) == {3}


def test_without_names_all_but_vcpus_and_the_main_loop_are_taken() -> None:
    unnamed = dict.fromkeys((7, 8, 9, 10), "qemu-system-x86")
    assert moving_threads(unnamed, 7, (8,)) == {9, 10}
    assert moving_threads(unnamed, 7) == set()


VCPU = 1024
"""The weight of a thread of niceness 0, and of a version 1 cgroup with the default shares."""


@pytest.mark.parametrize("ends", [1, 2])
def test_what_holds_a_move_leaves_a_vcpu_that_wants_its_core_most_of_it(ends: int) -> None:
    held = {name: ends * (weight // ends) for name, (_, weight) in budget.WEIGHTS.items()}
    for weight, whole in ((held["cgroup v1"], VCPU), (held["cgroup v2"], 100)):
        assert weight / (weight + whole) <= 0.02
    nice = ends * VCPU / 1.25 ** NICE[ends - 1]  # sched_prio_to_weight: a step is 1.25
    assert nice / (nice + VCPU) <= 0.03


def test_an_idle_core_beside_a_busy_hardware_thread_is_no_idle_core() -> None:
    siblings = {0: {0, 2}, 1: {1, 3}, 2: {0, 2}, 3: {1, 3}}
    busy = {0: 1.0, 1: 0.2, 2: 0.0, 3: 0.1}
    every = set(siblings)
    assert best_cores(1, busy, every, set()) == (2,)
    assert best_cores(1, busy, every, set(), siblings) == (3,)
    assert best_cores(2, busy, every, set(), siblings) == (1, 3)
    assert best_cores(1, busy, every, {0, 2}, siblings) == (2,)


@pytest.mark.parametrize(
    ("listed", "cores"), [("0\n", {0}), ("0-2,8\n", {0, 1, 2, 8}), ("\n", set())]
)
def test_lists_of_the_kernel_are_read(listed: str, cores: set[int]) -> None:
    assert budget._cores_in(listed) == cores


def test_this_machine_tells_which_hardware_threads_share_a_core() -> None:
    found = budget._siblings()
    assert all(core in sharing for core, sharing in found.items())


@given(
    st.integers(1, 12),
    st.dictionaries(st.integers(0, 7), st.floats(0, 1), max_size=8),
    st.sets(st.integers(0, 7), min_size=1),
    st.sets(st.integers(0, 7)),
)
def test_cores_near_the_nic_come_first_then_the_idle_ones(
    count: int, busy: dict[int, float], allowed: set[int], near: set[int]
) -> None:
    chosen = best_cores(count, busy, allowed, near)
    assert len(chosen) == min(count, len(allowed))
    assert set(chosen) <= allowed
    if not set(chosen) <= near:
        assert near & allowed <= set(chosen)
    for core in set(chosen):
        for other in allowed - set(chosen):
            if (core in near) == (other in near):
                assert busy.get(core, 0.0) <= busy.get(other, 0.0)


@contextmanager
def process() -> Iterator[int]:
    """A process with a thread named as QEMU names one that sends, and one as a vCPU."""
    program = """
import threading, time, sys
def named(name):
    with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w") as comm:
        comm.write(name)
    threads.append(name)
    while name.startswith("mig/src/spin") and not end.is_set():
        pass
    end.wait()
end, threads = threading.Event(), []
for name in ("CPU 0/TCG", "mig/src/main"):
    threading.Thread(target=named, args=(name,), daemon=True).start()
while len(threads) < 2:
    time.sleep(0.01)
print("ready", flush=True)
while (name := sys.stdin.readline().strip()):
    threading.Thread(target=named, args=(name,), daemon=True).start()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            _children[child.pid] = child
            yield child.pid
        finally:
            child.kill()
            budget.release_threads(child.pid)


_children: dict[int, "subprocess.Popen[str]"] = {}


def threads(pid: int) -> dict[str, int]:
    return {name: thread for thread, name in budget._names(pid).items()}


def until(true: object) -> None:
    assert callable(true)
    for _ in range(2000):
        if true():
            return
        time.sleep(0.005)
    raise AssertionError("it did not come to this")


def no_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_pid: int, _cores: float, **_: int) -> Quota:
        raise OSError("read-only")

    monkeypatch.setattr(budget, "Quota", refused)


def test_moving_threads_are_held_and_others_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    no_quota(monkeypatch)
    everywhere = os.sched_getaffinity(0)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with process() as pid:
        found = budget.confine(pid, 0.4, lease=60.0)
        assert found["means"] == "affinity"
        assert found["known"]
        assert found["threads"] == 1
        held = threads(pid)
        assert os.sched_getaffinity(held["mig/src/main"]) == set(found["cores"])
        assert len(found["cores"]) == 1
        assert found["nice"] == NICE[0]
        assert os.getpriority(os.PRIO_PROCESS, held["mig/src/main"]) == min(19, own + NICE[0])
        assert os.sched_getaffinity(held["CPU 0/TCG"]) == everywhere
        assert os.getpriority(os.PRIO_PROCESS, held["CPU 0/TCG"]) == own
        assert budget.release_threads(pid) == 1
        assert os.sched_getaffinity(held["mig/src/main"]) == everywhere
        assert os.getpriority(os.PRIO_PROCESS, held["mig/src/main"]) == own


@contextmanager
def a_vcpu_that_wants(core: int, *, apart: bool) -> Iterator[int]:
    """A process that spins on one core, as another guest's vCPU would.

    `apart`: the kernel shall share cores out between its session and others (sched_autogroup).
    """
    pinned = f"import os\nos.sched_setaffinity(0, {{{core}}})\nprint(flush=True)\nwhile 1: pass"
    words = [sys.executable, "-c", pinned]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=apart) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            yield child.pid
        finally:
            child.kill()


def ran(pid: int, thread: int | None = None) -> int:
    """Return the nanoseconds that a thread has run."""
    return int(Path(f"/proc/{pid}/task/{thread or pid}/schedstat").read_text().split()[0])


@pytest.mark.parametrize("quota", [True, False], ids=["cgroup", "niceness"])
def test_another_guests_vcpu_keeps_95_percent_of_a_core_that_a_held_thread_wants_too(
    monkeypatch: pytest.MonkeyPatch, *, quota: bool
) -> None:
    if not quota:
        no_quota(monkeypatch)
    with process() as pid:
        pipe = _children[pid].stdin
        assert pipe is not None
        pipe.write("mig/src/spin\n")
        pipe.flush()
        until(lambda: "mig/src/spin" in threads(pid))
        found = budget.confine(pid, 1, lease=60.0)
        if quota and not found["means"].startswith("cgroup"):
            pytest.skip("no cgroup can be made here")
        spinning = threads(pid)["mig/src/spin"]
        with a_vcpu_that_wants(found["cores"][0], apart=quota) as other:
            time.sleep(0.1)  # what either has saved up until then is used up
            before = ran(pid, spinning), ran(other)
            until(lambda: ran(other) - before[1] > 1.5e9)
            after = ran(pid, spinning), ran(other)
    moving, vcpu = (now - was for now, was in zip(after, before, strict=True))
    assert moving > 0
    assert vcpu / (moving + vcpu) >= 0.95


def test_threads_that_appear_later_are_held_too(monkeypatch: pytest.MonkeyPatch) -> None:
    no_quota(monkeypatch)
    everywhere = os.sched_getaffinity(0)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with process() as pid:
        budget.confine(pid, 0.4, lease=60.0)
        pipe = _children[pid].stdin
        assert pipe is not None
        pipe.write("mig/src/send_0\n")
        pipe.flush()
        until(lambda: "mig/src/send_0" in threads(pid))
        later = threads(pid)["mig/src/send_0"]
        until(lambda: len(os.sched_getaffinity(later)) == 1)
        until(lambda: os.getpriority(os.PRIO_PROCESS, later) == min(19, own + NICE[0]))
        budget.release_threads(pid)
        assert os.sched_getaffinity(later) == everywhere
        assert os.getpriority(os.PRIO_PROCESS, later) == own


def test_a_thread_that_a_held_one_starts_is_held_once_and_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    no_quota(monkeypatch)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with process() as pid:
        held = budget.Confinement(pid, 0.4, (), "")
        thread = threads(pid)["mig/src/main"]
        os.sched_setaffinity(thread, held.cores)  # as it would have inherited
        os.setpriority(os.PRIO_PROCESS, thread, min(19, own + NICE[0]))
        held.look()
        assert os.getpriority(os.PRIO_PROCESS, thread) == min(19, own + NICE[0])
        held.release()
        assert os.sched_getaffinity(thread) == os.sched_getaffinity(pid)
        assert os.getpriority(os.PRIO_PROCESS, thread) == own


def test_the_main_loop_is_held_only_while_the_guest_is_on_its_way_to_it() -> None:
    everywhere = os.sched_getaffinity(0)
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with process() as pid:
        found = budget.confine(pid, 0.4, lease=60.0, arriving=True)
        moving = threads(pid)["mig/src/main"]
        place = group(moving)
        assert found["threads"] == 2
        assert os.sched_getaffinity(pid) == set(found["cores"])
        assert group(pid) == place
        vcpu = threads(pid)["CPU 0/TCG"]
        os.sched_setaffinity(vcpu, found["cores"])  # as it would have inherited
        again = budget.confine(pid, 0.4, lease=60.0)
        assert again["threads"] == 1
        for thread in (pid, vcpu):
            assert os.sched_getaffinity(thread) == everywhere
            assert os.getpriority(os.PRIO_PROCESS, thread) == own
        time.sleep(5 * budget.FOLLOW_EVERY)  # who followed it before has seen that it is over
        assert os.sched_getaffinity(moving) == set(again["cores"])
        assert group(moving) == place
        if found["means"] != "affinity":
            assert group(pid) != place


def group(thread: int) -> str:
    """Return the cgroups of a thread."""
    return Path(f"/proc/{thread}/cgroup").read_text()


def test_a_lease_that_is_not_renewed_undoes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    no_quota(monkeypatch)
    everywhere = os.sched_getaffinity(0)
    with process() as pid:
        budget.confine(pid, 1, lease=0.0)
        until(lambda: os.sched_getaffinity(threads(pid)["mig/src/main"]) == everywhere)
        until(lambda: budget._CONFINED[pid].over)
        budget.confine(pid, 1, lease=60.0)
        assert len(os.sched_getaffinity(threads(pid)["mig/src/main"])) == 1


def test_a_process_that_is_not_there_is_an_error_and_nothing_is_kept() -> None:
    with process() as pid:
        pass
    with pytest.raises(FileNotFoundError):
        budget.confine(pid, 1, lease=1.0)
    assert budget.release_threads(pid) == 0


def test_no_follower_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    no_quota(monkeypatch)
    before = threading.active_count()
    with process() as pid:
        budget.confine(pid, 1, lease=60.0)
        assert threading.active_count() == before + 1
    until(lambda: threading.active_count() == before)


def v2_tree(root: Path, controllers: str) -> Path:
    line = Path(f"/proc/{os.getpid()}/cgroup").read_text().splitlines()[-1]
    own = root / line.split(":", 2)[2].lstrip("/")
    own.mkdir(parents=True, exist_ok=True)
    (own / "cgroup.controllers").write_text(controllers)
    (own / "cgroup.subtree_control").write_text("")
    return own


@pytest.fixture
def only_v2(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text

    def last_line(path: Path, *args: str | None, **named: str | None) -> str:
        text = read(path, *args, **named)
        return text.splitlines()[-1] if path.name == "cgroup" else text

    monkeypatch.setattr(Path, "read_text", last_line)


@pytest.mark.usefixtures("only_v2")
@pytest.mark.parametrize("ends", [1, 2])
def test_version_2_gets_a_threaded_group_with_a_quota(tmp_path: Path, ends: int) -> None:
    own = v2_tree(tmp_path, "cpu memory")
    quota = Quota(os.getpid(), 1.5, tmp_path, ends=ends)
    assert quota.means == "cgroup v2"
    folder = own / f"whimbrel-{os.getpid()}"
    assert (folder / "cgroup.type").read_text() == "threaded"
    assert (folder / "cpu.max").read_text() == "30000 20000"
    assert (folder / "cpu.weight").read_text() == f"{2 // ends}"
    assert (own / "cgroup.subtree_control").read_text() == "+cpu"
    quota.take(42)
    assert (folder / "cgroup.threads").read_text() == "42"
    quota.remove()
    assert (own / "cgroup.threads").read_text() == "42"
    assert (own / "cgroup.subtree_control").read_text() == "-cpu"


@pytest.mark.parametrize("ends", [1, 2])
def test_version_1_gets_a_group_with_a_quota_and_little_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: int
) -> None:
    monkeypatch.setattr(
        Path, "read_text", only_cgroup(Path.read_text, "4:cpu,cpuacct:/vms\n0::/\n")
    )
    (tmp_path / "cpu,cpuacct" / "vms").mkdir(parents=True)
    quota = Quota(os.getpid(), 1.5, tmp_path, ends=ends)
    assert quota.means == "cgroup v1"
    folder = tmp_path / "cpu,cpuacct" / "vms" / f"whimbrel-{os.getpid()}"
    assert (folder / "cpu.cfs_quota_us").read_text() == "30000"
    assert (folder / "cpu.cfs_period_us").read_text() == "20000"
    assert (folder / "cpu.shares").read_text() == f"{20 // ends}"
    quota.take(42)
    assert (folder / "tasks").read_text() == "42"
    quota.remove()
    assert (folder.parent / "tasks").read_text() == "42"


def only_cgroup(read: Callable[..., str], told: str) -> Callable[..., str]:
    """Return what reads a process's cgroups as told, and all other files as they are."""

    def reading(path: Path, *args: str | None, **named: str | None) -> str:
        return told if path.name == "cgroup" else read(path, *args, **named)

    return reading


@pytest.mark.usefixtures("only_v2")
def test_what_an_ended_process_left_is_swept_up(tmp_path: Path) -> None:
    own = v2_tree(tmp_path, "cpu")
    with process() as pid:
        pass
    (own / f"whimbrel-{pid}").mkdir()
    Quota(os.getpid(), 1.0, tmp_path).remove()
    assert not (own / f"whimbrel-{pid}").exists()


@pytest.mark.usefixtures("only_v2")
def test_version_2_without_the_controller_is_refused(tmp_path: Path) -> None:
    own = v2_tree(tmp_path, "memory")
    with pytest.raises(OSError, match="CPU controller"):
        Quota(os.getpid(), 1.5, tmp_path)
    assert not (own / f"whimbrel-{os.getpid()}").exists()
