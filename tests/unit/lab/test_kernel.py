import os
from pathlib import Path

import pytest

from whimbrel.errors import LabError
from whimbrel.lab.kernel import Kernel, cache_folder, find_kernel, kernel_version, published


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "whimbrel"


def unpack(root: Path, version: str, libraries: str = "lib/modules") -> Kernel:
    image = root / "boot" / f"vmlinuz-{version}"
    modules = root / libraries / version
    image.parent.mkdir(parents=True, exist_ok=True)
    (modules / "kernel").mkdir(parents=True)
    image.write_bytes(b"bzImage")
    return Kernel(image, modules)


def bzimage(path: Path, version: str) -> Path:
    """Write the header of a bzImage that names its version."""
    header = bytearray(0x400)
    header[0x202:0x206] = b"HdrS"
    header[0x20E:0x210] = (0x100).to_bytes(2, "little")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(header[:0x300]) + version.encode() + b" (me@here) #1 SMP\0rest")
    return path


def find(tmp_path: Path) -> Kernel:
    return find_kernel(boot=tmp_path / "boot", libraries=tmp_path / "lib" / "modules")


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    folder.mkdir()
    for name, script in scripts.items():
        program = folder / name.replace("_", "-")
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin" if scripts else str(folder))


APT_CACHE = """
case "$*" in
    "depends linux-image-cloud-amd64") echo "  Depends: linux-image-6.1.0-9-cloud" ;;
    "show linux-modules-6.1.0-9-cloud") echo "Package: found" ;;
    *) exit 100 ;;
esac"""
APT_GET = 'for package; do :; done; echo "$package" >"$package.deb"'
DPKG = """
version=6.1.0-9-cloud
case ${2##*/} in
    *linux-image*) mkdir -p "$3/boot"; echo kernel >"$3/boot/vmlinuz-$version" ;;
    *linux-modules*) mkdir -p "$3/usr/lib/modules/$version/kernel" ;;
esac"""


def test_the_cache_is_private_even_when_it_existed(cache: Path) -> None:
    cache.mkdir(parents=True, mode=0o755)
    assert cache_folder().stat().st_mode & 0o777 == 0o700


def test_a_given_kernel_is_taken_before_any_other(tmp_path: Path, cache: Path) -> None:
    unpack(cache / "kernels" / "linux-image-6.1", "6.1")
    given = bzimage(tmp_path / "mine", "6.5.0-me")
    modules = tmp_path / "lib" / "modules" / "6.5.0-me"
    modules.mkdir(parents=True)
    found = find_kernel(image=given, libraries=tmp_path / "lib" / "modules")
    assert found == Kernel(given, modules)
    assert find_kernel(image=given, modules=tmp_path) == Kernel(given, tmp_path)


def test_an_unpacked_kernels_modules_are_found_beside_it(tmp_path: Path) -> None:
    there = unpack(tmp_path / "package", "6.5.0", "usr/lib/modules")
    bzimage(there.image, "6.5.0")
    assert find_kernel(image=there.image, libraries=tmp_path / "none") == there


@pytest.mark.parametrize("text", [b"", b"\x7fELF", bytes(0x202) + b"HdrS" + bytes(20)])
def test_a_file_that_is_no_bzimage_names_no_version(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "k").write_bytes(text)
    assert kernel_version(tmp_path / "k") is None
    with pytest.raises(LabError, match="does not say which version") as caught:
        find_kernel(image=tmp_path / "k")
    assert "--modules" in caught.value.hint


def test_a_given_kernel_without_its_modules_says_where_they_were_looked_for(
    tmp_path: Path,
) -> None:
    given = bzimage(tmp_path / "mine", "6.5.0-me")
    with pytest.raises(LabError, match=f"6.5.0-me.*{tmp_path}/none/6.5.0-me") as caught:
        find_kernel(image=given, libraries=tmp_path / "none")
    assert "--modules" in caught.value.hint


def test_a_given_kernel_that_is_not_there_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="nowhere cannot be read"):
        find_kernel(image=tmp_path / "nowhere")


def test_given_modules_must_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "k").touch()
    with pytest.raises(LabError, match="not a folder"):
        find_kernel(image=tmp_path / "k", modules=tmp_path / "none")


def test_the_newest_cached_kernel_comes_first_by_number_not_by_letter(
    tmp_path: Path, cache: Path
) -> None:
    unpack(tmp_path, "7.0")
    unpack(cache / "kernels" / "linux-image-6.9.0-1", "6.9.0-1")
    newest = unpack(cache / "kernels" / "linux-image-6.10.0-1", "6.10.0-1", "usr/lib/modules")
    assert find(tmp_path) == newest


def test_this_machines_kernel_counts_only_with_its_modules(tmp_path: Path) -> None:
    complete = unpack(tmp_path, "6.1.0-2")
    (tmp_path / "boot" / "vmlinuz-6.1.0-3").write_bytes(b"bzImage")
    assert find(tmp_path) == complete


def test_without_kernel_and_apt_the_error_says_how_to_give_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path / "bin", monkeypatch)
    with pytest.raises(LabError, match="--kernel PATH"):
        find(tmp_path)


def test_apts_kernel_is_unpacked_with_its_modules_and_then_cached(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path / "bin", monkeypatch, apt_cache=APT_CACHE, apt_get=APT_GET, dpkg_deb=DPKG)
    told: list[str] = []
    found = find_kernel(progress=told.append, boot=tmp_path / "x", libraries=tmp_path / "x")
    place = cache / "kernels" / "linux-image-6.1.0-9-cloud"
    assert found.image == place / "boot" / "vmlinuz-6.1.0-9-cloud"
    assert found.modules == place / "usr" / "lib" / "modules" / "6.1.0-9-cloud"
    assert "downloading linux-image-6.1.0-9-cloud" in told
    assert os.listdir(cache / "kernels") == [place.name]  # noqa: PTH208 - hidden ones count
    programs(tmp_path / "none", monkeypatch)
    assert find(tmp_path) == found


def test_empty_apt_lists_are_refreshed_only_by_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    programs(
        tmp_path / "bin",
        monkeypatch,
        apt_cache="exit 100",
        apt_get=f'echo "$*" >>{log}',
        dpkg_deb="exit 1",
    )
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match='Run "apt-get update"'):
        find(tmp_path)
    assert not log.exists()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(LabError, match="apt knows none"):
        find(tmp_path)
    assert log.read_text() == "-qq update\n"


def test_a_failed_download_leaves_nothing_and_says_what_apt_said(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(
        tmp_path / "bin",
        monkeypatch,
        apt_cache=APT_CACHE,
        apt_get='echo "E: no such mirror" >&2; exit 100',
        dpkg_deb=DPKG,
    )
    with pytest.raises(LabError, match="E: no such mirror"):
        find(tmp_path)
    assert not list((cache / "kernels").glob("*"))


def test_a_package_without_a_kernel_is_not_cached(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path / "bin", monkeypatch, apt_cache=APT_CACHE, apt_get=APT_GET, dpkg_deb=":")
    with pytest.raises(LabError, match="holds no kernel"):
        find(tmp_path)
    assert not list((cache / "kernels").glob("*"))


def test_of_two_who_build_the_same_the_first_counts_and_both_go_on(tmp_path: Path) -> None:
    final = tmp_path / "thing"
    with published(final) as slow:
        slow.mkdir()
        (slow / "by").write_text("slow")
        with published(final) as quick:
            quick.mkdir()
            (quick / "by").write_text("quick")
    assert (final / "by").read_text() == "quick"
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]
