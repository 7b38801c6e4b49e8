import pytest

from whimbrel.errors import LabError
from whimbrel.lab.hosts import LabHost, two_hosts
from whimbrel.lab.links import MAX_LINKS


def test_a_command_enters_its_host_by_exec() -> None:
    host = LabHost("a", "whimbrel-1-2-a", ("10.99.0.1",), ("w0",))
    words = host.enter(["qemu", "-name", "two words"])
    assert words == [
        "nsenter",
        "--net=/run/netns/whimbrel-1-2-a",
        "--",
        "qemu",
        "-name",
        "two words",
    ]


@pytest.mark.parametrize(("rate", "count"), [(None, 0), (None, MAX_LINKS + 1), (0.0, 1), (-1.0, 1)])
def test_a_lab_that_cannot_be_is_refused(rate: float | None, count: int) -> None:
    with pytest.raises(LabError), two_hosts(rate, count):
        pass
