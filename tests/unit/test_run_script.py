"""The script `run`, in a copy of its own, with a PATH on which every program is a fake."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REAL = [
    "sh",
    "cat",
    "cksum",
    "cut",
    "dirname",
    "env",
    "grep",
    "head",
    "mkdir",
    "readlink",
    "sed",
    "sort",
    "tee",
    "tr",
    "chmod",
]
PROGRAMS = ["nsenter", "setpriv", "gcc", "busybox", "dpkg-deb", "zstd"]
TO_MOVE = ["qemu-img"]
TO_TEST = ["sshd", "ganesha.nfsd", "tgtd", "libvirtd", "virsh", "pkg-config", "depmod"]
MODULES = [
    "qemu/block-iscsi.so",
    "ganesha/libfsalvfs.so",
    "libvirt/connection-driver/libvirt_driver_qemu.so",
    "libvirt/storage-backend/libvirt_storage_backend_iscsi.so",
    "libvirt.so",
    "libibverbs/librxe-rdmav34.so",
]
DEBIAN_12 = "ID=debian\nVERSION_ID=12\nVERSION_CODENAME=bookworm\n"
UBUNTU = "ID=ubuntu\nVERSION_ID=22.04\nVERSION_CODENAME=jammy\n"

PYTHON = """
echo "python $*" >>"$LOG"
case "$*" in
    "-m venv "*) mkdir -p "$3/bin"; cat "$0" >"$3/bin/python"
        printf '#!/bin/sh\\necho "whimbrel in $(pwd): $*"\\n' >"$3/bin/whimbrel"
        chmod 755 "$3/bin/python" "$3/bin/whimbrel" ;;
esac
"""
APT = """
echo "apt-get $*" >>"$LOG"
case "$*" in
    *indextargets*Codename*) echo http://mirror.example/debian ;;
    *qemu-system-x86*) echo "#!/bin/sh
echo QEMU emulator version $NEWEST" >"$BIN/qemu-system-x86_64"
        chmod 755 "$BIN/qemu-system-x86_64" ;;
esac
"""


class Sandbox:
    """A copy of the checkout's script, and the machine it believes to be on."""

    def __init__(self, folder: Path) -> None:
        self.checkout = folder / "check out"
        self.bin = folder / "bin"
        self.log = folder / "log"
        self.sources = folder / "sources"
        self.release = folder / "os-release"
        self.elsewhere = folder / "elsewhere"
        self.libraries = folder / "lib"
        self.systemd = folder / "systemd"
        for made in (self.checkout / "requirements", self.bin, self.sources, self.elsewhere):
            made.mkdir(parents=True)
        for name in ("runtime", "test"):
            (self.checkout / "requirements" / f"{name}.txt").write_text(f"# {name}\n")
        (self.checkout / "pyproject.toml").touch()
        self.release.write_text(DEBIAN_12)
        self._copy(folder / "stdio.h")
        for name in REAL:
            (self.bin / name).symlink_to(str(shutil.which(name)))
        for name in (*PROGRAMS, *TO_MOVE, *TO_TEST):
            self.fake(name, "")
        for module in MODULES:
            (self.libraries / module).parent.mkdir(parents=True, exist_ok=True)
            (self.libraries / module).touch()
        self.fake("id", "echo 0")
        self.qemu("10.0.2 (Debian)")
        self.fake("python3", PYTHON)

    def _copy(self, header: Path) -> None:
        """Copy the script; what it looks for outside of PATH lies in this folder too."""
        header.touch()
        text = (ROOT / "run").read_text()
        for real, ours in {
            "/etc/os-release": self.release,
            "/etc/apt/sources.list.d": self.sources,
            "/usr/include/stdio.h": header,
            "/usr/lib/x86_64-linux-gnu": self.libraries,
            "/run/systemd/system": self.systemd,
            "$PATH:/usr/sbin:/sbin": "$PATH",
        }.items():
            assert real in text
            text = text.replace(real, str(ours))
        (self.checkout / "run").write_text(text)
        (self.checkout / "run").chmod(0o755)

    def fake(self, name: str, script: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def qemu(self, version: str) -> None:
        self.fake("qemu-system-x86_64", f'echo "QEMU emulator version {version}"')

    def run(
        self, *words: str, newest: str = "10.0.2", by: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        ours = {"PATH": self.bin, "LOG": self.log, "BIN": self.bin, "NEWEST": newest}
        return subprocess.run(
            [by or self.checkout / "run", *words],
            cwd=self.elsewhere,
            env={name: str(value) for name, value in ours.items()},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def called(self) -> list[str]:
        """Return the calls of apt and Python since the last time."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line for line in lines if not line.startswith("python -c")]


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def installs(calls: Sequence[str]) -> list[str]:
    return [call for call in calls if " install " in call and call.startswith("apt-get")]


def test_without_a_command_it_explains_itself(sandbox: Sandbox) -> None:
    for words in ((), ("help",), ("--help",)):
        done = sandbox.run(*words)
        assert done.returncode == 0, done.stderr
        for command in ("lab", "test", "whimbrel", "setup"):
            assert f"./run {command} " in done.stdout
        assert "set -eu" not in done.stdout
    assert sandbox.called() == []


def test_an_unknown_command_is_a_wrong_value(sandbox: Sandbox) -> None:
    done = sandbox.run("lob")
    assert done.returncode == 2
    assert "no command lob" in done.stderr
    assert "./run lab" in done.stderr
    assert done.stdout == ""


def test_without_apt_every_missing_program_is_named_and_nothing_is_touched(
    sandbox: Sandbox,
) -> None:
    (sandbox.bin / "gcc").unlink()
    (sandbox.bin / "busybox").unlink()
    sandbox.qemu("7.2.9")
    done = sandbox.run("setup")
    assert done.returncode == 2
    for name in ("gcc", "busybox", "qemu-system-x86_64 8.2 or newer", "is 7.2"):
        assert name in done.stderr
    assert "setpriv" not in done.stderr
    assert not (sandbox.checkout / ".venv").exists()


def test_the_second_call_installs_nothing(sandbox: Sandbox) -> None:
    sandbox.fake("apt-get", APT)
    first = sandbox.run("setup")
    assert first.returncode == 0, first.stderr
    assert any("requirements/test.txt" in call for call in sandbox.called())
    second = sandbox.run("setup")
    assert second.returncode == 0
    assert second.stderr == ""
    assert sandbox.called() == []


def test_new_requirements_are_installed(sandbox: Sandbox) -> None:
    sandbox.run("setup")
    sandbox.called()
    (sandbox.checkout / "requirements" / "test.txt").write_text("one-more==1\n")
    done = sandbox.run("whimbrel")
    assert done.returncode == 0, done.stderr
    assert any("requirements/test.txt" in call for call in sandbox.called())


@pytest.mark.parametrize("command", ["lab", "whimbrel"])
def test_whimbrel_runs_in_the_callers_folder(sandbox: Sandbox, command: str) -> None:
    link = sandbox.elsewhere / "link"
    link.symlink_to(sandbox.checkout / "run")
    for way in (sandbox.checkout / "run", link):
        done = sandbox.run(command, "--json", "here.json", by=way)
        assert done.returncode == 0, done.stderr
        assert f"whimbrel in {sandbox.elsewhere}:" in done.stdout
        assert done.stdout.strip().endswith("--json here.json")
    assert {path.name for path in sandbox.elsewhere.iterdir()} == {"link"}


@pytest.mark.parametrize("version", ["7.2.9", "8.1.5", "8.0.0-rc1", "unknown"])
def test_an_old_qemu_counts_as_missing(sandbox: Sandbox, version: str) -> None:
    sandbox.fake("apt-get", APT)
    sandbox.qemu(version)
    done = sandbox.run("setup")
    assert done.returncode == 0, done.stderr
    [call] = installs(sandbox.called())
    assert call.endswith("--target-release=bookworm-backports install qemu-system-x86")
    [added] = sandbox.sources.iterdir()
    assert "URIs: http://mirror.example/debian\nSuites: bookworm-backports\n" in added.read_text()


@pytest.mark.parametrize("version", ["8.2.0", "8.10.0", "9.0.1", "10.0.2 (Debian)"])
def test_a_newer_qemu_is_left_alone(sandbox: Sandbox, version: str) -> None:
    sandbox.qemu(version)
    assert sandbox.run("setup").returncode == 0


@pytest.mark.parametrize("release", [UBUNTU, "ID=debian\nVERSION_ID=13\nVERSION_CODENAME=trixie\n"])
def test_only_debian_12_gets_backports(sandbox: Sandbox, release: str) -> None:
    sandbox.fake("apt-get", APT)
    sandbox.release.write_text(release)
    (sandbox.bin / "qemu-system-x86_64").unlink()
    done = sandbox.run("setup")
    assert done.returncode == 0, done.stderr
    [call] = installs(sandbox.called())
    assert call.endswith("--no-install-recommends install qemu-system-x86")
    assert list(sandbox.sources.iterdir()) == []


def test_a_distribution_whose_qemu_is_too_old_is_told_so(sandbox: Sandbox) -> None:
    sandbox.fake("apt-get", APT)
    sandbox.release.write_text(UBUNTU)
    sandbox.qemu("6.2.0")
    done = sandbox.run("setup", newest="6.2.0")
    assert done.returncode == 2
    assert "8.2 or newer" in done.stderr
    assert "is 6.2" in done.stderr
    assert "Ubuntu 24.04" in done.stderr


def test_what_apt_cannot_install_is_one_message_in_its_own_words(sandbox: Sandbox) -> None:
    (sandbox.bin / "zstd").unlink()
    noise = "echo noise; echo 'E: Unable to locate package zstd' >&2; exit 100"
    sandbox.fake("apt-get", noise)
    done = sandbox.run("setup")
    assert done.returncode == 2
    assert "apt could not install zstd" in done.stderr
    assert "E: Unable to locate package zstd" in done.stderr
    assert "noise" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("broken", "said"),
    [("-m venv *", ".venv could not be made"), ("-m pip *", "packages could not be installed")],
)
def test_python_that_cannot_be_set_up_is_said(sandbox: Sandbox, broken: str, said: str) -> None:
    sandbox.fake("python3", f'case "$*" in "{broken[:-2]} "*) exit 1 ;; esac\n{PYTHON}')
    done = sandbox.run("setup")
    assert done.returncode == 2
    assert said in done.stderr
    assert not list((sandbox.checkout).glob(".venv/.whimbrel*"))


def test_without_root_it_says_what_root_would_install(sandbox: Sandbox) -> None:
    sandbox.fake("apt-get", APT)
    sandbox.fake("id", "echo 1000")
    (sandbox.bin / "gcc").unlink()
    done = sandbox.run("setup")
    assert done.returncode == 2
    assert "root is needed" in done.stderr
    assert "  gcc\n" in done.stderr
    assert sandbox.called() == []


def test_the_lab_needs_neither_disks_nor_servers(sandbox: Sandbox) -> None:
    sandbox.fake("apt-get", APT)
    for name in (*TO_MOVE, *TO_TEST):
        (sandbox.bin / name).unlink()
    for module in MODULES:
        (sandbox.libraries / module).unlink()
    done = sandbox.run("lab")
    assert done.returncode == 0, done.stderr
    assert installs(sandbox.called()) == []


def test_moving_needs_qemus_tools_and_modules_but_no_servers(sandbox: Sandbox) -> None:
    sandbox.fake("apt-get", APT)
    for name in (*TO_MOVE, *TO_TEST):
        (sandbox.bin / name).unlink()
    for module in MODULES:
        (sandbox.libraries / module).unlink()
    done = sandbox.run("whimbrel")
    [call] = installs(sandbox.called())
    assert call.endswith("--target-release=bookworm-backports install qemu-block-extra qemu-utils")
    assert done.returncode == 2  # the fake apt brings nothing


@pytest.mark.parametrize("words", [("lab", "--nested"), ("lab", "--json", "-", "--nested")])
def test_emulated_hosts_need_what_their_tests_need(sandbox: Sandbox, words: list[str]) -> None:
    sandbox.fake("apt-get", APT)
    for name in TO_TEST:
        (sandbox.bin / name).unlink()
    sandbox.run(*words)
    [besides, _] = installs(sandbox.called())
    for package in ("cifs-utils", "iproute2", "kmod", "openssh-server", "samba"):
        assert f" {package}" in besides


@pytest.mark.parametrize("command", ["test", "setup"])
def test_tests_need_servers_besides(sandbox: Sandbox, command: str) -> None:
    sandbox.fake("apt-get", APT)
    for name in TO_TEST:
        (sandbox.bin / name).unlink()
    for module in MODULES[1:]:
        (sandbox.libraries / module).unlink()
    sandbox.run(command)
    servers, libvirt = installs(sandbox.called())
    assert servers.endswith(
        " install ibverbs-providers kmod nfs-ganesha nfs-ganesha-vfs openssh-server pkg-config tgt"
    )
    assert libvirt.endswith(
        " --target-release=bookworm-backports install libvirt-clients libvirt-daemon"
        " libvirt-daemon-driver-qemu libvirt-daemon-driver-storage-iscsi libvirt-dev"
    )


def test_libvirts_driver_for_iscsi_is_a_package_of_its_own_on_debian_only(sandbox: Sandbox) -> None:
    sandbox.fake("apt-get", APT)
    sandbox.release.write_text("ID=ubuntu\nVERSION_ID=24.04\nVERSION_CODENAME=noble\n")
    (sandbox.libraries / MODULES[3]).unlink()
    assert sandbox.run("setup").returncode == 0


def test_libvirt_python_is_compiled_with_pythons_headers(sandbox: Sandbox) -> None:
    sandbox.fake("apt-get", APT)
    sandbox.fake("python3", f'case "$*" in *Python.h*) exit 1 ;; esac\n{PYTHON}')
    sandbox.run("setup")
    [call] = installs(sandbox.called())
    assert call.endswith(" install python3-dev")


def test_modules_are_asked_of_debians_qemu_only(sandbox: Sandbox) -> None:
    for module in MODULES:
        (sandbox.libraries / module).unlink()
    assert sandbox.run("setup").returncode == 0


SYSTEMCTL = """
case "$*" in "cat tgt.service") exit 0 ;; cat*) exit 1 ;; esac
echo "systemctl $*" >>"$LOG"
"""


def test_no_service_of_a_test_package_is_started_and_none_of_the_owners_is_touched(
    sandbox: Sandbox,
) -> None:
    sandbox.fake("apt-get", APT)
    sandbox.fake("systemctl", SYSTEMCTL)
    sandbox.systemd.mkdir()
    (sandbox.bin / "sshd").unlink()
    sandbox.run("setup")
    calls = sandbox.called()
    [install] = [at for at, call in enumerate(calls) if call.endswith("install openssh-server")]
    assert calls.index("systemctl --quiet --runtime mask ssh.service") < install
    assert calls.index("systemctl --quiet --runtime mask rpcbind.socket") < install
    assert calls.index("systemctl --quiet disable ssh.service") > install
    assert calls.index("systemctl --quiet --runtime unmask ssh.service") > install
    assert not any("tgt.service" in call for call in calls)


def test_services_are_let_go_of_also_when_apt_fails(sandbox: Sandbox) -> None:
    sandbox.fake("apt-get", "exit 100")
    sandbox.fake("systemctl", SYSTEMCTL)
    sandbox.systemd.mkdir()
    (sandbox.bin / "sshd").unlink()
    assert sandbox.run("setup").returncode == 2
    calls = sandbox.called()
    masked = [call.split()[-1] for call in calls if " mask " in call]
    assert masked
    assert masked == [call.split()[-1] for call in calls if " unmask " in call]


@pytest.mark.parametrize("missing", ["gcc", "qemu-img"])
def test_services_are_nobodys_business_where_no_server_is_installed(
    sandbox: Sandbox, missing: str
) -> None:
    sandbox.fake("apt-get", APT)
    sandbox.fake("systemctl", SYSTEMCTL)
    sandbox.systemd.mkdir()
    (sandbox.bin / missing).unlink()
    sandbox.run("whimbrel")
    assert not any(call.startswith("systemctl") for call in sandbox.called())


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not here")
def test_shellcheck_has_nothing_to_say() -> None:
    done = subprocess.run(
        ["shellcheck", str(ROOT / "run")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
