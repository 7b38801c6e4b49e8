from dataclasses import replace

import pytest

from whimbrel.model.check import Check, Result
from whimbrel.model.inventory import Vm
from whimbrel.model.preflight import (
    DiskState,
    HostFacts,
    HypervisorFacts,
    MachineFacts,
    PinFacts,
    Unknown,
)
from whimbrel.theory.checks import machine as rules

VM = Vm("web", 1 << 30)
KVM = replace(VM, accelerator="kvm")
A = HostFacts("a", boot_id="1", network="10", folder="8:1", cpu_model="old")
B = HostFacts("b", boot_id="2", network="10", folder="8:1", cpu_model="old")
RUNS = MachineFacts(
    version=(10, 0, 2),
    package="Debian",
    machine_type="pc-q35-10.0",
    cpu_model="qemu64",
    cpu_features=frozenset({"sse2", "nx"}),
    devices={"disk-vda": "virtio-blk-pci"},
)
THERE = HypervisorFacts(
    version=(10, 0, 2),
    package="Debian",
    machine_types={"pc-q35-10.0": 288},
    cpu_models=frozenset({"qemu64"}),
    cpu_features=frozenset({"sse2", "nx", "avx"}),
    devices=frozenset({"virtio-blk-pci"}),
)


def test_an_older_qemu_is_warned_of_and_a_newer_one_is_not() -> None:
    def judged(version: tuple[int, int, int]) -> Result:
        there = replace(THERE, version=version)
        return rules.hypervisor_version(RUNS, there, "a", "b").result

    assert judged((10, 0, 2)) is Result.PASS
    assert judged((10, 1, 0)) is Result.PASS
    assert judged((10, 0, 1)) is Result.WARN
    assert judged((9, 2, 4)) is Result.WARN


def test_the_machine_type_must_be_known_with_so_many_vcpus() -> None:
    assert rules.machine_type(RUNS, THERE, VM, "b").result is Result.PASS
    newer = replace(RUNS, machine_type="pc-q35-10.1")
    assert rules.machine_type(newer, THERE, VM, "b").result is Result.FAIL
    assert rules.machine_type(RUNS, THERE, replace(VM, vcpus=300), "b").result is Result.FAIL


def test_each_cpu_feature_that_is_missing_is_named_and_turned_off_in_the_remedy() -> None:
    assert rules.cpu_features(RUNS, THERE, "b").result is Result.PASS
    wide = replace(RUNS, cpu_features=frozenset({"sse2", "avx2", "avx512f"}))
    check = rules.cpu_features(wide, THERE, "b")
    assert check.result is Result.FAIL
    assert "avx2, avx512f" in check.detail
    assert "qemu64,avx2=off,avx512f=off" in check.remedy


def test_the_cpu_model_must_be_known() -> None:
    unknown = replace(RUNS, cpu_model="Diamond-v9")
    assert rules.cpu_features(unknown, THERE, "b").result is Result.FAIL


def test_an_emulated_tsc_is_the_same_everywhere() -> None:
    other = replace(B, cpu_model="new")
    assert rules.time_stamp_counter(VM, RUNS, A, other).result is Result.PASS


def test_a_tsc_of_another_cpu_must_be_scaled() -> None:
    assert rules.time_stamp_counter(KVM, RUNS, A, B).result is Result.PASS
    other = replace(B, cpu_model="new")
    assert rules.time_stamp_counter(KVM, RUNS, A, other).result is Result.WARN
    for flag in ("tsc_scale", "tsc_scaling"):
        scaling = replace(other, clock_flags=frozenset({flag}))
        assert rules.time_stamp_counter(KVM, RUNS, A, scaling).result is Result.PASS


def test_an_invariant_tsc_needs_a_stated_frequency() -> None:
    promised = replace(RUNS, cpu_features=frozenset({"invtsc"}))
    assert rules.time_stamp_counter(KVM, promised, A, B).result is Result.FAIL
    stated = replace(promised, tsc_frequency=2_400_000_000)
    assert rules.time_stamp_counter(KVM, stated, A, B).result is Result.PASS


@pytest.mark.parametrize(
    "kind",
    [
        "vfio-pci",
        "usb-host",
        "ivshmem-plain",
        "vhost-user-fs-pci",
        "virtio-9p-pci",
        "vhost-user-blk-pci",
        "vhost-vdpa-device-pci",
        "tpm-tis",
    ],
)
def test_devices_of_the_host_cannot_be_moved(kind: str) -> None:
    check = rules.movable_devices(replace(RUNS, devices={"x": kind}))
    assert check.result is Result.FAIL
    assert kind in check.detail
    assert '"id": "x"' in check.remedy


def test_what_keeps_state_outside_qemu_cannot_be_moved() -> None:
    assert rules.movable_devices(RUNS).result is Result.PASS
    assert rules.movable_devices(replace(RUNS, tpm=("emulator",))).result is Result.FAIL
    assert rules.movable_devices(replace(RUNS, shared_memory=("ram",))).result is Result.FAIL


@pytest.mark.parametrize("kind", ["sev-guest", "sev-snp-guest", "tdx-guest", "pr-manager-helper"])
def test_objects_that_belong_to_the_host_cannot_be_moved(kind: str) -> None:
    check = rules.movable_devices(replace(RUNS, objects={"lock0": kind}))
    assert check.result is Result.FAIL
    assert kind in check.detail
    plain = replace(RUNS, objects={"memory": "memory-backend-ram"})
    assert rules.movable_devices(plain).result is Result.PASS


def test_a_cpu_shown_as_it_is_should_be_the_same_on_both_hosts() -> None:
    shown = replace(RUNS, cpu_model="host")
    other = replace(B, cpu_model="new")
    assert rules.cpu_as_is(KVM, shown, A, B).result is Result.PASS
    assert rules.cpu_as_is(KVM, shown, A, other).result is Result.WARN
    assert rules.cpu_as_is(KVM, RUNS, A, other).result is Result.PASS
    assert rules.cpu_as_is(VM, replace(RUNS, cpu_model="max"), A, other).result is Result.PASS


def test_a_device_that_came_or_went_since_the_start_is_missing_on_one_side() -> None:
    assert rules.as_built(RUNS).result is Result.PASS
    came = rules.as_built(replace(RUNS, plugged=("usb7",)))
    assert came.result is Result.FAIL
    assert '"id": "usb7"' in came.remedy
    assert rules.as_built(replace(RUNS, unplugged=("virtio-net-pci",))).result is Result.FAIL


def test_every_kind_of_device_must_be_known_there() -> None:
    assert rules.known_devices(RUNS, THERE, "b").result is Result.PASS
    odd = replace(RUNS, devices={"gpu": "virtio-vga-gl"})
    check = rules.known_devices(odd, THERE, "b")
    assert check.result is Result.FAIL
    assert "virtio-vga-gl" in check.detail


def test_qemus_own_refusal_is_told_in_its_words() -> None:
    assert rules.not_blocked(RUNS).result is Result.PASS
    check = rules.not_blocked(replace(RUNS, blocked=("non-migratable feature: invtsc",)))
    assert check.result is Result.FAIL
    assert "non-migratable feature: invtsc" in check.detail


def test_a_migration_under_way_is_not_begun_again_and_one_that_is_over_does_not_count() -> None:
    assert rules.not_blocked(replace(RUNS, migration="postcopy-paused")).result is Result.FAIL
    assert rules.not_blocked(replace(RUNS, migration="cancelled")).result is Result.PASS


@pytest.mark.parametrize(
    ("state", "result"),
    [
        ("running", Result.PASS),
        ("paused", Result.WARN),
        ("suspended", Result.WARN),
        ("io-error", Result.FAIL),
        ("guest-panicked", Result.FAIL),
        ("inmigrate", Result.FAIL),
        ("postmigrate", Result.FAIL),
    ],
)
def test_only_a_guest_that_runs_or_could_run_is_moved(state: str, result: Result) -> None:
    check = rules.run_state(VM, replace(RUNS, state=state))
    assert check.result is result
    assert "{vm}" not in check.remedy


def test_a_backup_or_mirror_that_runs_forbids_the_move() -> None:
    assert rules.no_jobs(RUNS).result is Result.PASS
    check = rules.no_jobs(replace(RUNS, jobs=("backup nightly (running)",)))
    assert check.result is Result.FAIL
    assert "nightly" in check.detail


def test_a_record_for_incremental_backups_is_left_behind() -> None:
    marked = replace(RUNS, disks=(DiskState("vda", ("/d",), bitmaps=("nightly",)),))
    assert rules.no_bitmaps(RUNS).result is Result.PASS
    assert rules.no_bitmaps(marked).result is Result.WARN


def test_free_page_hints_are_offered_on_both_hosts_or_on_none() -> None:
    hinting = replace(VM, free_page_hints=True)
    offers = replace(RUNS, free_page_hints=True)
    lacking = replace(THERE, free_page_hints=False)
    assert rules.free_page_hints(VM, RUNS, THERE, "b").result is Result.PASS
    assert rules.free_page_hints(hinting, offers, THERE, "b").result is Result.PASS
    assert rules.free_page_hints(hinting, RUNS, THERE, "b").result is Result.FAIL
    assert rules.free_page_hints(VM, offers, THERE, "b").result is Result.FAIL
    assert rules.free_page_hints(hinting, offers, lacking, "b").result is Result.FAIL


def test_a_qemu_that_does_not_start_is_told_with_what_mends_it() -> None:
    assert rules.accelerator(VM, THERE, B).result is Result.PASS
    missing = rules.accelerator(VM, Unknown("no such program"), B)
    assert missing.result is Result.FAIL
    assert "apt-get install" in missing.remedy
    assert "modprobe" in rules.accelerator(KVM, Unknown("no kvm"), B).remedy


TIGHT = PinFacts(8 << 20, held=True, may_be_raised=False)


def pinning(running: MachineFacts, pins: PinFacts) -> Check:
    return rules.zero_copy(VM, running, pins, "a")


def test_pages_that_are_sent_uncopied_must_be_allowed_to_be_pinned() -> None:
    for enough in (None, VM.memory):
        assert pinning(RUNS, replace(TIGHT, limit=enough)).result is Result.PASS
    assert pinning(RUNS, replace(TIGHT, held=False)).result is Result.PASS
    check = pinning(RUNS, replace(TIGHT, may_be_raised=True))  # but nobody does it
    assert check.result is Result.FAIL
    assert "may pin 8 MiB of 1 GiB" in check.detail
    assert "ulimit -l" in check.remedy


def test_what_raises_limits_for_a_move_must_be_allowed_to() -> None:
    managed = replace(RUNS, raises_limits=True)
    assert pinning(managed, replace(TIGHT, may_be_raised=True)).result is Result.PASS
    assert pinning(managed, replace(TIGHT, limit=VM.memory)).result is Result.PASS
    for held in (True, False):  # libvirt does not look whether QEMU is held to its limit
        check = pinning(managed, replace(TIGHT, held=held))
        assert check.result is Result.FAIL
        assert "CAP_SYS_RESOURCE" in check.detail
        assert "ulimit" not in check.remedy
