"""The systemd unit: whole, written only on request, and never over somebody else's."""

import shutil
import subprocess
from pathlib import Path

import pytest

from whimbrel.errors import ConfigError
from whimbrel.schedule.service import MARK, NAME, Service, service

PYTHON = "/opt/my tools/100%/bin/python"


def unit(home: Path, *, system: bool = False, **variables: str) -> Service:
    return service(PYTHON, variables, home, system=system)


def test_a_users_unit_lies_in_the_users_folder(tmp_path: Path) -> None:
    assert unit(tmp_path).path == tmp_path / ".config/systemd/user" / NAME
    given = unit(tmp_path, XDG_CONFIG_HOME=f"{tmp_path}/c")
    assert given.path == tmp_path / "c/systemd/user" / NAME
    assert given.commands[1] == f"systemctl --user enable --now {NAME}"


def test_the_systems_unit_starts_with_the_machine(tmp_path: Path) -> None:
    made = unit(tmp_path, system=True)
    assert made.path == Path("/etc/systemd/system") / NAME
    assert "WantedBy=multi-user.target" in made.text
    assert made.commands == ("systemctl daemon-reload", f"systemctl enable --now {NAME}")


def test_words_are_quoted_as_systemd_reads_them(tmp_path: Path) -> None:
    made = unit(tmp_path, XDG_STATE_HOME='/a "b"')
    assert 'ExecStart="/opt/my tools/100%%/bin/python" -m whimbrel scheduler' in made.text
    assert 'Environment="XDG_STATE_HOME=/a \\"b\\""' in made.text


def test_vms_are_not_killed_with_the_scheduler(tmp_path: Path) -> None:
    assert "\nKillMode=process\n" in unit(tmp_path).text


def test_a_word_that_no_unit_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unit"):
        unit(tmp_path, XDG_STATE_HOME="/a\nExecStart=/bin/evil")


def test_it_is_written_and_written_again_but_not_over_anothers(tmp_path: Path) -> None:
    made = unit(tmp_path)
    made.write()
    made.write()
    assert made.path.read_text().startswith(MARK)
    made.path.write_text("[Unit]\nDescription=mine\n")
    with pytest.raises(ConfigError, match="not written by whimbrel"):
        made.write()
    assert made.path.read_text() == "[Unit]\nDescription=mine\n"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / ".config").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        unit(tmp_path).write()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("system", [False, True])
def test_systemd_reads_it_without_complaint(tmp_path: Path, system: bool) -> None:
    python = tmp_path / "my tools" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    made = service(f"{python}", {"XDG_STATE_HOME": "/a b/100%"}, tmp_path, system=system)
    path = tmp_path / NAME
    path.write_text(made.text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", f"{path}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert NAME not in done.stderr, done.stderr
