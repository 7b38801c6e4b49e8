"""whimbrel.toml: everything can be said, nothing wrong gets through, and every error helps."""

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whimbrel.config import Config, load
from whimbrel.config.lines import line_numbers
from whimbrel.errors import ConfigError
from whimbrel.model.inventory import Host, MigrationLink
from whimbrel.model.plan import Goal
from whimbrel.model.policy import Encryption, MovePolicy

WHOLE = """
[hosts.a]
uri = "qemu+ssh://root@10.0.0.1:2222"
folder = "/run/other"
identity = "/keys/id"
known_hosts = "hosts"
sockets = ["/run/by-hand/qmp"]
bandwidth_limit = "800 Mbit/s"
cpu_budget = 1.5
certificates = "/etc/pki/qemu"
certificate_name = "a.example.org"
ports = "49152-49215"
[[hosts.a.links]]
address = "10.0.1.1"
rate = "1 Gbit/s"
trusted = true
[[hosts.a.links]]
address = "fd00::1"

[hosts.b]
uri = "qemu:///local"

[policy]
max_downtime = "300 ms"
deadline = "10 min"
postcopy = false
goal = "least-downtime"
encryption = "always"
"""


HOST = '[hosts.a]\nuri = "qemu:///local"\n'
LIBVIRT = '[hosts.a]\nuri = "libvirt:///system"\n'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, beside a config folder of the user's own."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return here


def read(folder: Path, text: str) -> Config:
    path = folder / "whimbrel.toml"
    path.write_text(text, encoding="utf-8")
    return load(Path("whimbrel.toml"))


def refused(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    return str(caught.value)


def test_every_key_arrives_where_it_belongs(folder: Path) -> None:
    config = read(folder, WHOLE)
    assert config.hosts == {
        "a": Host(
            name="a",
            uri="qemu+ssh://root@10.0.0.1:2222",
            folder="/run/other",
            links=(MigrationLink("10.0.1.1", 125e6, trusted=True), MigrationLink("fd00::1")),
            bandwidth_limit=100e6,
            cpu_budget=1.5,
            sockets=("/run/by-hand/qmp",),
            identity=Path("/keys/id"),
            known_hosts=folder / "hosts",
            certificates="/etc/pki/qemu",
            certificate_name="a.example.org",
            ports=(49152, 49215),
        ),
        "b": Host(name="b", uri="qemu:///local"),
    }
    assert config.policy == MovePolicy(
        0.3, 600.0, postcopy=False, goal=Goal.LEAST_DOWNTIME, encryption=Encryption.ALWAYS
    )


def test_what_only_libvirt_needs_arrives_too(folder: Path) -> None:
    peer, sockets = "qemu+tls://a.example.org/system", "/run/channels"
    config = read(folder, f'{LIBVIRT}peer = "{peer}"\nchannel_folder = "{sockets}"\n')
    assert config.host("a") == Host("a", "libvirt:///system", peer=peer, channel_folder=sockets)


def test_every_value_has_its_line_or_is_default(folder: Path) -> None:
    config = read(folder, WHOLE)
    lines = WHOLE.splitlines()
    for setting in config.settings:
        if setting.origin != "default":
            file, number = setting.origin.split(":")
            assert file == "whimbrel.toml"
            key = setting.key.rpartition(".")[2]
            assert lines[int(number) - 1].startswith(key), setting
    assert config.origins["hosts.b.folder"] == "default"
    assert config.origins["hosts.a.links[1].rate"] == "default"
    written = [setting for setting in config.settings if setting.origin != "default"]
    assert len(written) == sum("=" in line for line in lines)


def test_the_working_folder_comes_before_the_config_folder(folder: Path) -> None:
    assert load() == Config(settings=load().settings)
    home = folder.parent / "config" / "whimbrel"
    home.mkdir(parents=True)
    (home / "whimbrel.toml").write_text('[hosts.home]\nuri = "qemu:///local"\n')
    assert list(load().hosts) == ["home"]
    assert list(read(folder, WHOLE).hosts) == list(load().hosts) == ["a", "b"]


def test_a_strangers_file_counts_only_when_it_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "whimbrel.toml").write_text(WHOLE)
    os.chown(folder / "whimbrel.toml", 4242, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ConfigError, match=r"uid 4242(.|\n)*--config"):
        load()
    assert load(Path("whimbrel.toml")).hosts


def test_an_unknown_host_is_told_with_the_nearest_name(folder: Path) -> None:
    with pytest.raises(ConfigError, match='Did you mean "host-a"'):
        read(folder, '[hosts.host-a]\nuri = "qemu:///local"\n').host("hosta")
    with pytest.raises(ConfigError, match=r"\[hosts.a\]"):
        Config().host("a")


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("[hosts.a]\n", ":1: hosts.a.uri: is missing.", ""),
        (HOST + 'folders = "/x"\n', ":3: hosts.a.folders: no such key.", 'mean "folder"'),
        (HOST + 'goal = "fastest"\n', ":3: hosts.a.goal: no such key.", 'mean "policy.goal"'),
        ("[host.a]\n", ":1: host: no such key.", 'mean "hosts"'),
        (HOST + 'bandwidth_limit = "800"\n', ':3: hosts.a.bandwidth_limit: "800" has no', "units:"),
        (HOST + 'bandwidth_limit = "0 bit/s"\n', "must be more than 0", ""),
        (HOST + "bandwidth_limit = 800\n", "must be a text, not 800", '"1 Gbit/s"'),
        (HOST + 'cpu_budget = "many"\n', "must be a number of cores", '"none"'),
        (HOST + "cpu_budget = nan\n", "must be more than 0", ""),
        (HOST + 'folder = "run"\n', '"run" is no whole path', ""),
        (HOST + 'folder = "/run/../etc"\n', "is no whole path", ""),
        (HOST + 'links = "10.0.0.1"\n', "hosts.a.links: must be a list", ""),
        (
            HOST + '[[hosts.a.links]]\naddress = "server"\n',
            ':4: hosts.a.links[0].address: "',
            "NIC",
        ),
        (
            HOST + '[[hosts.a.links]]\nadress = "::1"\n',
            ":4: hosts.a.links[0].adress: no",
            "address",
        ),
        ("hosts = 3\n", ":1: hosts: must be a table ([hosts])", ""),
        ('[hosts.a]\nuri = "ssh://a"\n', '"ssh://a" is no URI of a host', "qemu+ssh://"),
        ('[hosts.a]\nuri = "qemu+ssh://a:x"\n', "is no URI of a host", ""),
        ('[hosts.a]\nuri = "qemu+ssh://-oProxyCommand=x"\n', "names no host", ""),
        ('[hosts."a/b"]\nuri = "qemu:///local"\n', "hosts.a/b: the name must be letters", ""),
        (HOST + 'identity = "/key"\n', "is for hosts that SSH reaches", ""),
        (
            '[hosts.a]\nuri = "libvirt+tls://a/system"\nidentity = "/key"\n',
            "only libvirt leads",
            "",
        ),
        (HOST + 'sockets = ["/q", "/q"]\n', '"/q" is named twice', ""),
        (HOST + 'peer = "qemu+tls://a/system"\n', "is for hosts that libvirt runs", ""),
        (LIBVIRT + 'peer = "b.example.org"\n', "is no URI under which other hosts'", "virsh -c"),
        (LIBVIRT + 'peer = "qemu+tls://me:hunter@b/system"\n', "is no URI under which", ""),
        (LIBVIRT + 'channel_folder = "sockets"\n', "is no whole path", ""),
        (LIBVIRT + 'sockets = ["/q"]\n', "is for plain QEMU; libvirt runs this host", ""),
        (LIBVIRT + 'ports = "49152-49215"\n', "is for plain QEMU; libvirt runs this host", ""),
        (LIBVIRT + 'certificates = "/c"\n', "is for plain QEMU; libvirt runs this host", ""),
        (HOST + 'ports = "49152"\n', '"49152" is no range of TCP ports', '"49152-49215"'),
        (HOST + 'ports = "9-8"\n', '"9-8" is no range of TCP ports', ""),
        (HOST + 'ports = "8-70000"\n', '"8-70000" is no range of TCP ports', ""),
        (HOST + 'ports = "8-8"\n', "must be two ports at least", "one for disks"),
        (HOST + 'certificates = "pki"\n', "is no whole path", ""),
        (HOST + 'certificate_name = "b"\n', "whose folder of certificates is named", ""),
        (HOST + 'certificate_name = "b c"\n', '"b c" is no name of a host', "b.example.org"),
        ('[policy]\ngoal = "fast"\n', ':2: policy.goal: "fast" is not known.', 'mean "fastest"'),
        ('[policy]\nmax_downtime = "1 h"\n', "must be at most 2000 s", ""),
        ('[policy]\nencryption = "on"\n', '"on" is not known', "auto, always, never"),
        ("[policy]\npostcopy = 1\n", "must be true or false, not 1", ""),
        (HOST + HOST, ":3: [hosts.a] is written twice.", "rename"),
        (HOST + 'uri = "qemu:///local"\n', ":3: uri is written twice.", ""),
        (HOST + HOST.replace("s.a", "s.A"), 'differs from "a" in capital letters', ""),
        (HOST + HOST.replace("s.a", "s.b"), 'is the host that "a" names', ""),
        ("[hosts.a\n", "is not valid TOML", ""),
    ],
)
def test_a_mistake_is_told_with_its_place_and_a_remedy(
    folder: Path, text: str, where: str, what: str
) -> None:
    said = refused(folder, text)
    assert said.startswith("whimbrel.toml")
    assert where in said
    assert what in said


def test_all_mistakes_are_told_at_once(folder: Path) -> None:
    said = refused(folder, '[hosts.a]\nurl = "x"\n[policy]\ngoals = "x"\n')
    assert ":1: hosts.a.uri" in said
    assert ":2: hosts.a.url" in said
    assert ":4: policy.goals" in said


def test_two_machines_share_no_address_but_two_folders_of_one_may(folder: Path) -> None:
    one = '[hosts.{}]\nuri = "{}"\nfolder = "/run/{}"\nlinks = [{{address = "10.0.0.1"}}]\n'
    same = one.format("a", "qemu:///local", "a") + one.format("b", "qemu:///local", "b")
    assert len(read(folder, same).hosts) == 2
    other = one.format("a", "qemu:///local", "a") + one.format("b", "qemu+ssh://h", "b")
    said = refused(folder, other)
    assert ':8: hosts.b.links[0].address: 10.0.0.1 is an address of "a" already.' in said


@pytest.mark.parametrize("key", ["password", "ssh_password", "api-token", "Passphrase", "secret"])
def test_a_password_is_refused_and_not_repeated(folder: Path, key: str) -> None:
    said = refused(folder, HOST + f'{key} = "hunter2"\n')
    assert f"whimbrel.toml:3: hosts.a.{key}: no password may stand in a file." in said
    assert "SSH keys" in said
    assert "hunter2" not in said


def test_a_password_in_a_uri_is_refused_and_not_repeated(folder: Path) -> None:
    said = refused(folder, '[hosts.a]\nuri = "qemu+ssh://root:hunter2@10.0.0.1"\n')
    assert "hosts.a.uri: holds a password" in said
    assert "hunter2" not in said


def test_a_key_itself_is_no_identity(folder: Path) -> None:
    text = '[hosts.a]\nuri = "qemu+ssh://h"\nidentity = "-----BEGIN OPENSSH PRIVATE KEY-----abc"\n'
    said = refused(folder, text)
    assert "must be the path of a key's file" in said
    assert "abc" not in said


def test_a_host_may_be_called_what_a_password_is_called(folder: Path) -> None:
    assert list(read(folder, '[hosts.secretary]\nuri = "qemu:///local"\n').hosts) == ["secretary"]


def test_lines_are_found_in_every_way_to_write_toml() -> None:
    text = 'a.b = 1\n# x\nc = [\n  1,\n  {d = 2},\n]\n[t]\ne = """\nf = 3\n"""\n[[t.u]]\ng = 4\n'
    text += "[[t.u]]\n[t.u.v]\nh = 5\n[[t.u.w]]\ni = 6\n"
    lines = line_numbers(text)
    assert lines["a", "b"] == 1
    assert lines["c", 1, "d"] == 3
    assert lines["t", "e"] == 8
    assert ("t", "f") not in lines
    assert lines["t", "u", 0, "g"] == 12
    assert lines["t", "u", 1] == 13
    assert lines["t", "u", 1, "v", "h"] == 15
    assert lines["t", "u", 1, "w", 0, "i"] == 17


@given(st.text(alphabet='ab.[]={}"\n1, #', max_size=60))
def test_whatever_is_written_lines_are_found_or_none(text: str) -> None:
    try:
        tomllib.loads(text)
    except ValueError:
        line_numbers(text)
        return
    assert all(1 <= number <= text.count("\n") + 1 for number in line_numbers(text).values())
