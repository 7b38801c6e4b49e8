"""Images on a host, made and removed by their records; qemu-img makes the qcow2 ones."""

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from whimbrel.model.units import MIB
from whimbrel.sites.onsite import disks


def make(tmp_path: Path, name: str = "new", **more: Any) -> str:
    wanted = {"image_format": "raw", "size": 8 * MIB, **more}
    path = str(tmp_path / name)
    return disks.image_make(folder=str(tmp_path / "whimbrel"), vm="guest", path=path, **wanted)


def info(path: Path) -> dict[str, Any]:
    words = ["qemu-img", "info", "--output=json", str(path)]
    found: dict[str, Any] = json.loads(subprocess.check_output(words))
    return found


@pytest.mark.parametrize("image_format", ["raw", "qcow2"])
def test_an_image_is_made_empty_private_and_is_removed_by_its_record(
    tmp_path: Path, image_format: str
) -> None:
    token = make(tmp_path, image_format=image_format)
    image = tmp_path / "new"
    assert image.stat().st_mode & 0o777 == 0o600
    assert info(image)["virtual-size"] == 8 * MIB
    assert info(image)["format"] == image_format
    assert image.stat().st_blocks * 512 < MIB
    folder = str(tmp_path / "whimbrel")
    assert Path(folder).stat().st_mode & 0o777 == 0o700
    assert Path(folder, "images").stat().st_mode & 0o777 == 0o700
    assert [held["token"] for held in disks.images_made(folder)] == [token]
    assert disks.image_remove(folder, token)
    assert not image.exists()
    assert disks.images_made(folder) == []
    assert not disks.image_remove(folder, token)


def test_an_image_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("somebody's")
    with pytest.raises(FileExistsError):
        make(tmp_path)
    assert (tmp_path / "new").read_text() == "somebody's"
    assert disks.images_made(str(tmp_path / "whimbrel")) == []


def test_an_image_that_was_replaced_meanwhile_is_not_removed(tmp_path: Path) -> None:
    token = make(tmp_path)
    (tmp_path / "new").rename(tmp_path / "moved")
    (tmp_path / "new").write_text("somebody's")
    assert not disks.image_remove(str(tmp_path / "whimbrel"), token)
    assert (tmp_path / "new").read_text() == "somebody's"


def test_an_image_that_is_kept_is_not_ours_any_more(tmp_path: Path) -> None:
    token = make(tmp_path)
    disks.image_keep(str(tmp_path / "whimbrel"), token)
    assert not disks.image_remove(str(tmp_path / "whimbrel"), token)
    assert (tmp_path / "new").exists()


def test_a_failed_image_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nothing"):
        make(tmp_path, image_format="qcow2", backing=str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="not vmdk"):
        make(tmp_path, image_format="vmdk")
    with pytest.raises(ValueError, match="no absolute path"):
        disks.image_make(folder=str(tmp_path), vm="v", path="new", image_format="raw", size=1)
    assert not (tmp_path / "new").exists()
    assert disks.images_made(str(tmp_path / "whimbrel")) == []


def test_an_image_rests_on_its_base(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.write_bytes(bytes(8 * MIB))
    make(tmp_path, image_format="qcow2", backing=str(base), backing_format="raw")
    assert info(tmp_path / "new")["backing-filename"] == str(base)


def test_only_the_file_that_was_named_is_discarded(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(b"x")
    identity = disks.image_identity(str(old))
    assert identity is not None
    (tmp_path / "other").write_bytes(b"y")
    (tmp_path / "other").replace(old)
    assert not disks.image_discard(str(old), identity)
    assert old.exists()
    seen = disks.image_identity(str(old))
    assert seen is not None
    assert disks.image_discard(str(old), seen)
    assert not old.exists()


def test_written_zeros_and_holes_have_the_same_fingerprint_and_one_byte_another(
    tmp_path: Path,
) -> None:
    holes, zeros, other = (tmp_path / name for name in ("holes", "zeros", "other"))
    for path in (holes, zeros, other):
        with path.open("wb") as file:
            file.truncate(9 * MIB + 5)
            file.seek(3 * MIB + 7)
            file.write(b"data")
    with zeros.open("r+b") as file:
        file.write(bytes(2 * MIB))
    with other.open("r+b") as file:
        file.seek(9 * MIB)
        file.write(b"\1")
    prints = [disks.image_fingerprint(str(path)) for path in (holes, zeros, other)]
    assert prints[0] == prints[1]
    assert prints[0] != prints[2]


def test_where_nobody_tells_of_holes_all_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, other = tmp_path / "plain", tmp_path / "other"
    for path, last in ((plain, b"1"), (other, b"2")):
        path.write_bytes(b"first" + bytes(5 * MIB) + last)
    seek = os.lseek

    def as_on_a_device(file: int, at: int, how: int) -> int:
        if how == os.SEEK_DATA:
            raise OSError(errno.EINVAL, "no such thing on a device")
        return seek(file, at, how)

    told = disks.image_fingerprint(str(plain))
    disks._hashes.clear()
    monkeypatch.setattr(os, "lseek", as_on_a_device)
    assert disks.image_fingerprint(str(plain)) == told
    assert disks.image_fingerprint(str(other)) != told


def test_a_file_is_read_once_and_again_when_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "base"
    path.write_bytes(b"one")
    read: list[int] = []
    pread = os.pread

    def counted(file: int, size: int, at: int) -> bytes:
        read.append(at)
        return pread(file, size, at)

    monkeypatch.setattr(os, "pread", counted)
    told = disks.image_fingerprint(str(path))
    assert disks.image_fingerprint(str(path)) == told
    assert len(read) == 1
    path.write_bytes(b"longer")
    assert disks.image_fingerprint(str(path)) != told


def test_what_is_at_a_path_is_told_with_the_room_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, kind in (("file", "file"), ("", "folder"), ("new", "nothing")):
        found = disks.image_room(str(tmp_path / name))
        assert found["kind"] == kind
        assert found["free"] > 0
    assert disks.image_room("/no/such/folder/x") == {"kind": "nothing", "free": None}
    assert disks.image_room("iscsi://host/name/1")["kind"] == "address"
    assert disks.image_allocated([str(tmp_path / "nothing"), str(tmp_path)]) == [None, None]
