import os
import subprocess
from pathlib import Path

from whimbrel.sites.ssh import sweep


def test_folders_of_killed_whimbrels_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    names = [f"whimbrel-ssh-{ended.pid}-a", f"whimbrel-ssh-{os.getpid()}-b", "whimbrel-ssh-x-c"]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "0").touch()
    sweep(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(names[1:])
