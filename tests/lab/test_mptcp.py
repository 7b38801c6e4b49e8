"""MPTCP set up and taken back as the kernel really has it, in a network of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from whimbrel.lab.hosts import LabHost, two_hosts
from whimbrel.lab.namespaces import in_namespace
from whimbrel.sites.onsite import mptcp

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="making network namespaces needs root")

T = TypeVar("T")
ADDRESS = "10.99.0.1"


@pytest.fixture
def host() -> Iterator[LabHost]:
    """A host with one address, MPTCP off."""
    with two_hosts(None) as (a, _):
        in_namespace(a.namespace, lambda: Path("/proc/sys/net/mptcp/enabled").write_text("0"))
        yield a


def on(host: LabHost, ask: Callable[..., T], **arguments: Any) -> T:
    return in_namespace(host.namespace, lambda: ask(**arguments))


def prepare(host: LabHost, folder: Path, vm: str = "web") -> list[str]:
    return on(
        host, mptcp.mptcp_prepare, folder=str(folder), vm=vm, paths=3, announce=[ADDRESS], port=9099
    )


def release(host: LabHost, folder: Path, vm: str = "") -> list[str]:
    return on(host, mptcp.mptcp_release, folder=str(folder), vm=vm)


def test_what_is_set_up_is_taken_back_to_what_it_was(host: LabHost, tmp_path: Path) -> None:
    before = on(host, mptcp.mptcp_facts)
    assert before["known"]
    done = prepare(host, tmp_path)
    assert done[0] == "sysctl -w net.mptcp.enabled=1"
    assert done[-1] == f"ip mptcp endpoint add {ADDRESS} port 9099 signal"
    now = on(host, mptcp.mptcp_facts)
    assert now["enabled"]
    assert min(now["subflows"], now["accepted"]) >= 3
    assert now["announced"] == [ADDRESS]
    assert len(release(host, tmp_path, "web")) == 3
    assert on(host, mptcp.mptcp_facts) == before
    assert release(host, tmp_path) == []


def test_the_last_of_two_moves_takes_it_back(host: LabHost, tmp_path: Path) -> None:
    assert prepare(host, tmp_path)
    assert prepare(host, tmp_path, "mail") == []
    assert release(host, tmp_path, "web") == []
    assert on(host, mptcp.mptcp_facts)["enabled"]
    assert release(host, tmp_path, "mail")
    assert not on(host, mptcp.mptcp_facts)["enabled"]


def test_what_was_there_before_stays(host: LabHost, tmp_path: Path) -> None:
    switched = ["sysctl", "-q", "-w", "net.mptcp.enabled=1"]
    announced = ["ip", "mptcp", "endpoint", "add", ADDRESS, "port", "9000", "signal"]
    for words in (switched, announced):
        subprocess.run(host.enter(words), check=True)
    prepare(host, tmp_path)
    release(host, tmp_path, "web")
    assert on(host, mptcp.mptcp_facts)["announced"] == [ADDRESS]


def test_what_one_that_died_had_set_up_is_taken_back_once_its_move_is_over(
    host: LabHost, tmp_path: Path
) -> None:
    prepare(host, tmp_path)
    path = tmp_path / "mptcp.json"
    record = json.loads(path.read_text())
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        record["holders"][0]["pid"] = ended.pid
    path.write_text(json.dumps(record))
    mark = tmp_path / "moves" / "web.json"
    mark.parent.mkdir()
    mark.write_text("{}")
    assert release(host, tmp_path) == []  # its guest may be on its way
    mark.unlink()
    assert release(host, tmp_path)
    assert not on(host, mptcp.mptcp_facts)["enabled"]


def test_an_address_that_is_not_there_is_refused_and_nothing_stays(
    host: LabHost, tmp_path: Path
) -> None:
    before = on(host, mptcp.mptcp_facts)
    with pytest.raises(RuntimeError):
        on(
            host,
            mptcp.mptcp_prepare,
            folder=str(tmp_path),
            vm="web",
            paths=1,
            announce=["192.0.2.1"],
        )
    assert on(host, mptcp.mptcp_facts) == before
    assert not (tmp_path / "mptcp.json").exists()
