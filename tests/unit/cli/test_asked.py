"""What two commands ask of a move is one set of options, and what cannot be meant is refused."""

from typing import Any

import pytest
from typer.main import get_command

from whimbrel.cli.asked import Asked
from whimbrel.cli.main import program
from whimbrel.errors import ConfigError
from whimbrel.model.method import Method
from whimbrel.model.storage import Extent

MOVE_ALONE = {"plan", "anyway", "remove_source", "at", "when", "wait_at_most"}
PLAN_ALONE = {"save", "everything"}


def parameters(name: str) -> dict[str, Any]:
    command = get_command(program([name, "vms"])).commands[name]  # type: ignore[attr-defined]
    return {each.name: each for each in command.params}


def test_plan_and_move_ask_the_same_but_for_what_only_one_can_use() -> None:
    plan, move = parameters("plan"), parameters("move")
    assert move.keys() - plan.keys() == MOVE_ALONE
    assert plan.keys() - move.keys() == PLAN_ALONE
    alike = {name: (each.opts, each.default) for name, each in plan.items() if name != "to"}
    for name in plan.keys() & move.keys() - {"to"}:
        assert alike[name] == (move[name].opts, move[name].default), name


def test_a_plan_needs_a_host_and_a_move_may_do_without() -> None:
    assert parameters("plan")["to"].required
    assert not parameters("move")["to"].required


def test_how_much_of_a_chain_is_said_only_of_disks_that_are_copied() -> None:
    with pytest.raises(ConfigError, match="--chain"):
        Asked("db", "b", chain=Extent.TOP).check()
    Asked("db", "b", chain=Extent.TOP, storage=["/srv"]).check()


@pytest.mark.parametrize(
    ("flags", "beside", "instead"),
    [
        ({"channels": 4}, "several channels", Method.MULTICHANNEL),
        ({"postcopy": True}, "post-copy", Method.POSTCOPY),
        ({"prepare_network": True}, "several NICs", Method.MULTINIC),
    ],
)
def test_what_cannot_be_had_by_rdma_is_refused_with_what_does_it_by_tcp(
    flags: dict[str, Any], beside: str, instead: Method
) -> None:
    with pytest.raises(ConfigError, match=beside) as refused:
        Asked("db", "b", method=Method.RDMA, **flags).check()
    assert f"--method {instead}" in refused.value.hint
    Asked("db", "b", **flags).check()
    Asked("db", "b", method=Method.RDMA, postcopy=False, pin_all=True).check()


def test_memory_is_pinned_beforehand_by_rdma_only() -> None:
    with pytest.raises(ConfigError, match="--pin-all"):
        Asked("db", "b", method=Method.TCP, pin_all=True).check()
    Asked("db", "b", pin_all=True).check()


def test_pages_are_sent_uncopied_by_plain_channels_only() -> None:
    for method in (Method.TCP, Method.COMPRESSED, Method.ENCRYPTED, Method.RDMA):
        with pytest.raises(ConfigError, match="--zero-copy") as refused:
            Asked("db", "b", method=method, zero_copy=True).check()
        assert f"--method {Method.MULTICHANNEL}" in refused.value.hint
    Asked("db", "b", method=Method.MULTICHANNEL, zero_copy=True).check()
    Asked("db", "b", zero_copy=True).check()
