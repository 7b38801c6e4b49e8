import pytest

from whimbrel.model.threads import ThreadClass, by_class, thread_class


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("CPU 0/TCG", ThreadClass.VCPU),
        ("CPU 17/KVM", ThreadClass.VCPU),
        ("mig/src/main", ThreadClass.MIGRATION),
        ("mig/src/rp-thr", ThreadClass.MIGRATION),
        ("mig/dst/listen", ThreadClass.MIGRATION),
        ("mig/dst/fault", ThreadClass.MIGRATION),
        ("live_migration", ThreadClass.MIGRATION),
        ("mig/src/send_0", ThreadClass.CHANNEL),
        ("mig/src/send_12", ThreadClass.CHANNEL),
        ("mig/dst/recv_0", ThreadClass.CHANNEL),
        ("multifdsend_0", ThreadClass.CHANNEL),
        ("multifdrecv_3", ThreadClass.CHANNEL),
        ("IO iothread0", ThreadClass.IO),
        ("IO mon_iothread", ThreadClass.IO),
        ("worker", ThreadClass.IO),
        ("qemu-system-x86", ThreadClass.MAIN),
        ("", ThreadClass.OTHER),
        ("python", ThreadClass.OTHER),
    ],
)
def test_a_thread_of_qemu_is_known_by_its_name(name: str, kind: ThreadClass) -> None:
    assert thread_class(name) is kind


def test_threads_are_summed_by_what_they_work_for() -> None:
    names = {"qemu-system-x86": 1.0, "CPU 0/KVM": 8.0, "mig/src/send_0": 2.0, "multifdsend_1": 3.0}
    found = by_class(names)
    assert found is not None
    assert found[ThreadClass.CHANNEL] == 5.0
    assert (found[ThreadClass.MAIN], found[ThreadClass.VCPU]) == (1.0, 8.0)
    assert found[ThreadClass.MIGRATION] == 0.0


def test_a_hypervisor_that_does_not_name_its_threads_tells_nothing() -> None:
    assert by_class({"qemu-system-x86": 9.0}) is None
    assert by_class({}) is None
