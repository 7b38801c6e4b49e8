"""Runs what `./run test` promises: style, types, then the tests; stops at the first that fails."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

DAILY = ["-m", "not long", "--durations=20", "--durations-min=1"]


def main(arguments: list[str]) -> int:
    """Return the first failing step's exit code, or 0."""
    python = [sys.executable, "-m"]
    steps = [
        [*python, "ruff", "check", "--quiet", "."],
        [*python, "ruff", "format", "--check", "--quiet", "."],
        [*python, "mypy"],
        [*python, "pytest", *(arguments or DAILY)],
    ]
    for step in steps if not arguments else steps[-1:]:
        code = subprocess.run(step, cwd=ROOT, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
