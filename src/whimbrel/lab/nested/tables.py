"""What `lab --nested` compares: two tables of their own, on two emulated hosts.

one wire                     tcp, multichannel, rdma, rdma pin-all
a team of two (802.3ad)      tcp, multichannel
"""

from collections.abc import Mapping
from dataclasses import replace

from whimbrel.errors import ConfigError
from whimbrel.lab.nested.team import Mode
from whimbrel.lab.plan import Planned
from whimbrel.model.method import Method, Tuning, tuning_for
from whimbrel.model.scenario import LinkSpec, Scenario

BASE: Mapping[str, object] = {
    "name": "Emulated hosts",
    "timeout": "600 s",
    "downtime_limit": "2 s",
    "channels": 4,
    "accelerator": "tcg",
    "survey": "quick",
    "link": {"rate": "10 Mbit/s"},
    "guest": {"memory": "128 MiB", "redline": {"fill": "16 MiB", "pattern": "random"}},
}
"""The keys of a scenario file that hold unless a flag says otherwise. Emulated twice, a guest is
slow: it is small, may stand still for longer, and is given more time."""

FLAGS = frozenset(
    {
        *("repeats", "memory", "vcpus", "fill", "pattern", "hot", "dirty_rate", "access", "touch"),
        *("survey", "link", "downtime_limit", "timeout", "channels"),
    }
)
"""The lab's flags that have a meaning here; all others are refused."""

PIN_ALL = "rdma pin-all"
"""What RDMA with all memory pinned beforehand is called."""


def nested_tables(scenario: Scenario) -> tuple[Scenario, Scenario]:
    """Return the two tables, the one over a single wire first.

    The wire is as fast as the emulated cores drive it. Those of the team have the rate of the
    scenario's link, so that they and not the cores decide; there are twice as many channels, since
    a hash may send four over one wire.

    Raises:
        ConfigError: The scenario's NICs are unequal.
    """
    if scenario.link.rates:
        raise ConfigError("The wires of a team have one rate.", 'Such as --link "10 Mbit/s".')
    settings = scenario.settings
    alone = replace(
        scenario,
        name=f"{scenario.name}: one wire",
        methods=(Method.TCP, Method.MULTICHANNEL, Method.RDMA),
        link=LinkSpec(None),
        nested=True,
    )
    team = replace(
        scenario,
        name=f"{scenario.name}: a team of two wires",
        methods=(Method.TCP, Method.MULTICHANNEL),
        link=LinkSpec(scenario.link.rate, 2, team=Mode.LACP.value),
        settings=replace(settings, channels=2 * settings.channels),
        nested=True,
    )
    return alone, team


def nested_plan(scenario: Scenario) -> tuple[Planned, ...]:
    """Return a table's moves in the order they run; repeats go round and round all of them."""
    kinds = [kind for method in scenario.methods for kind in _kinds(method, scenario)]
    moves = [(*kind, repeat) for repeat in range(1, scenario.repeats + 1) for kind in kinds]
    return tuple(
        Planned(method, tuning, repeat, number, len(moves), preset)
        for number, (method, preset, tuning, repeat) in enumerate(moves, start=1)
    )


def _kinds(method: Method, scenario: Scenario) -> list[tuple[Method, str, Tuning]]:
    settings = scenario.settings
    found = [(method, "", tuning_for(method, settings))]
    if method is Method.RDMA:
        found.append((method, PIN_ALL, tuning_for(method, replace(settings, pin_all=True))))
    return found
