import os
import socket
from pathlib import Path

import pytest

from whimbrel.errors import LabError
from whimbrel.lab import folders
from whimbrel.lab.folders import bases, run_folder
from whimbrel.lab.owner import Owner


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only base there is, so that no test touches the real one."""
    base = tmp_path / "w"
    monkeypatch.setattr(folders, "bases", lambda *_: (base,))
    monkeypatch.setattr(folders, "_SOCKET_LENGTH", 300)  # pytest's own folders are long
    return base


def test_a_run_folder_is_private_and_named_after_its_owner(place: Path) -> None:
    with run_folder() as folder:
        assert folder == place / Owner.current().folder
        assert folder.stat().st_mode & 0o777 == 0o700
        assert place.stat().st_mode & 0o777 == 0o700


def test_a_run_folder_is_gone_afterwards_with_all_it_held(place: Path) -> None:
    def run() -> None:
        with run_folder() as folder:
            (folder / "deep").mkdir()
            (folder / "deep" / "console").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert not place.exists()


def test_the_folder_of_another_run_stays(place: Path) -> None:
    (place / "lab-1-1").mkdir(parents=True, mode=0o700)
    place.chmod(0o700)
    with run_folder():
        pass
    assert (place / "lab-1-1").is_dir()


def test_a_second_run_in_the_same_process_is_refused_and_the_first_stays(place: Path) -> None:
    with run_folder() as folder:
        with pytest.raises(LabError, match="already"), run_folder():
            pass
        assert folder.is_dir()
        assert folder.parent == place


def test_a_place_that_others_may_enter_is_refused(place: Path) -> None:
    place.mkdir()
    place.chmod(0o755)
    with pytest.raises(LabError, match="others may") as caught, run_folder():
        pass
    assert "XDG_RUNTIME_DIR" in caught.value.hint


def test_a_link_in_place_of_the_folder_is_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LabError, match="not a folder"), run_folder():
        pass


def test_a_place_whose_sockets_would_be_too_long_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_SOCKET_LENGTH", len(bytes(place)))
    with pytest.raises(LabError, match="too long"), run_folder():
        pass


def test_the_next_place_is_taken_when_the_first_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "no" / "such", tmp_path / "w"
    monkeypatch.setattr(folders, "bases", lambda *_: (first, second))
    monkeypatch.setattr(folders, "_SOCKET_LENGTH", 300)
    with run_folder() as folder:
        assert folder.parent == second


def test_run_comes_before_the_users_folder_and_that_before_temporary_files() -> None:
    found = bases({"XDG_RUNTIME_DIR": "/run/user/7"}, 7)
    assert found[:2] == (Path("/run/whimbrel-7"), Path("/run/user/7/whimbrel-7"))
    assert bases({}, 7) == (found[0], found[2])


def test_a_socket_with_a_name_of_40_bytes_can_be_made() -> None:
    with run_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(folder / ("s" * 40)))
