import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.hypervisors.qemu.reproduce import named_devices, options, reproduce

MACHINE = "pc-q35-10.0"
plain_words = st.text("abcxyz0189/=.,", min_size=1)


def again(line: str) -> str:
    found = reproduce(["qemu-system-x86_64", *shlex.split(line)], MACHINE)
    assert found.reasons == ()
    return shlex.join(found.words[1:])


def reasons(line: str) -> str:
    return " | ".join(reproduce(["qemu-system-x86_64", *shlex.split(line)], MACHINE).reasons)


def test_what_belongs_to_no_host_is_kept_word_by_word() -> None:
    line = "-m 512 -smp 2 -cpu host -device virtio-net-pci,netdev=n0 -netdev user,id=n0"
    assert again(f"-M q35 {line}") == f"-M {MACHINE} {line}"


@pytest.mark.parametrize("kind", ["q35,accel=kvm", "type=q35,accel=kvm"])
def test_the_machine_type_becomes_the_versioned_one_with_its_properties(kind: str) -> None:
    assert again(f"-machine {kind}") == f"-machine {MACHINE},accel=kvm"


def test_a_machine_type_that_was_qemus_own_choice_is_named() -> None:
    assert again("-m 512") == f"-m 512 -machine {MACHINE}"
    assert f"-machine {MACHINE}" in again("-machine accel=tcg,usb=off")


def test_how_it_began_is_left_to_the_destination() -> None:
    line = "-M q35 -S -incoming tcp:0:4444 -daemonize -pidfile /run/x.pid -loadvm one -no-reboot"
    assert again(line) == f"-M {MACHINE} -no-reboot"


def test_sockets_and_logs_lie_in_the_vms_folder_each_with_a_name_of_its_own() -> None:
    line = (
        "-M q35 -qmp unix:/tmp/qmp,server=on,wait=off -monitor unix:/srv/qmp,server,nowait"
        " -serial file:/tmp/console -chardev socket,id=c,path=/tmp/c,server=on -D /tmp/log"
    )
    assert again(line) == shlex.join(
        shlex.split(
            f"-M {MACHINE} -qmp unix:{{folder}}/own1-qmp,server=on,wait=off"
            " -monitor unix:{folder}/own2-qmp,server,nowait -serial file:{folder}/own3-console"
            " -chardev socket,id=c,path={folder}/own4-c,server=on -D {folder}/own5-log"
        )
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-netdev tap,id=n0,fd=3", "handed open files"),
        ("-add-fd fd=3,set=1", "handed open files"),
        ("-drive file=/dev/fdset/1", "handed open files"),
        ('-blockdev \'{"driver":"file","fd":"3"}\'', "handed open files"),
        ("-drive file=disk.img,format=raw", "relative path disk.img"),
        ("-hda disk.img", "relative path disk.img"),
        ("disk.img", "relative path disk.img"),
        ("-kernel ./vmlinuz", "relative path ./vmlinuz"),
        ('-blockdev \'{"driver":"file","filename":"disk.img"}\'', "relative path disk.img"),
        ("-blockdev driver=file,filename=disk.img,node-name=x", "relative path disk.img"),
        ("-device vfio-pci,host=01:00.0", "vfio-pci belongs to its host"),
        ('-device \'{"driver":"vfio-pci"}\'', "vfio-pci belongs to its host"),
        ("-device usb-host,vendorid=1", "belongs to its host"),
        ("-virtfs local,path=/,mount_tag=x,security_model=none", "shares a folder"),
        ("-chardev pipe,id=p,path=/tmp/p", "is a pipe of its host"),
        ("-serial pipe:/tmp/p", "is a pipe of its host"),
        ("-serial /dev/ttyS0", "/dev/ttyS0 of its host"),
        ("-qmp unix:/tmp/other", "connects to somebody at /tmp/other"),
        ("-chardev socket,id=c,path=/tmp/c", "connects to somebody at /tmp/c"),
        ("-netdev socket,id=n0,connect=:1", "wired to another program"),
        ("-netdev tap,id=n0,ifname=t0,script=no", "made by hand"),
        ("-snapshot", "thrown away"),
        ("-object secret,id=s,data=abc", "a secret stands in its command line"),
        ("-readconfig /etc/vm.cfg", "in a file"),
    ],
)
def test_what_cannot_be_had_elsewhere_is_a_reason(line: str, words: str) -> None:
    assert words in reasons(f"-M q35 {line}")


def test_a_program_with_a_relative_path_is_a_reason() -> None:
    assert "relative path" in reproduce(["./qemu", "-M", "q35"], MACHINE).reasons[0]


def test_devices_are_known_by_their_ids() -> None:
    line = (
        '-device virtio-net-pci,id=n0 -device \'{"driver":"e1000","id":"n1"}\' -device usb-tablet'
    )
    assert named_devices(["qemu", *shlex.split(line)]) == {"n0", "n1"}


@given(st.lists(plain_words))
def test_any_words_are_split_without_loss(words: list[str]) -> None:
    values = [value for option, value in options(words) if option == "hda"]
    assert values == words
