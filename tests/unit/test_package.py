"""What `pip install .` installs: the package as a wheel, complete and with its command."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    [built] = folder.glob("*.whl")
    return built


def test_it_holds_every_file_of_the_source(wheel: Path) -> None:
    wanted = {
        path.relative_to(SOURCE).as_posix()
        for path in (SOURCE / "whimbrel").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(wheel) as package:
        assert wanted <= set(package.namelist())


def test_it_can_be_used_from_where_it_was_unpacked(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as package:
        package.extractall(tmp_path)
    [points] = tmp_path.glob("*.dist-info/entry_points.txt")
    assert "whimbrel = whimbrel.cli.main:main" in points.read_text()
    asks = "import whimbrel; print(whimbrel.__file__, whimbrel.run_lab.__name__)"
    told = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {asks}"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert told == [str(tmp_path / "whimbrel" / "__init__.py"), "run_lab"]
