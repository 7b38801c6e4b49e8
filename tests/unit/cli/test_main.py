import subprocess
import sys

from whimbrel.cli.main import BESIDE, COMMANDS, called


def test_a_command_line_loads_the_command_that_it_names_and_else_all() -> None:
    assert list(called(["vms", "--json"])) == ["vms"]
    assert list(called(["--version"])) == list(COMMANDS)
    assert list(called(["nonsense"])) == list(COMMANDS)
    assert list(called(["schedule", "list"])) == ["schedule", *BESIDE["schedule"]]


def test_a_command_about_hosts_does_not_load_the_lab() -> None:
    asked = "import sys; from whimbrel.cli.main import program; program(['vms']); "
    asked += "print('pyroute2' in sys.modules, 'matplotlib' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["False", "False"]
