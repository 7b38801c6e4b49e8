"""whimbrel moves running virtual machines between hosts without stopping them.

    import asyncio
    import whimbrel

    scenario = whimbrel.Scenario(methods=(whimbrel.Method.TCP, whimbrel.Method.MULTICHANNEL))
    result = asyncio.run(whimbrel.run_lab([scenario]))
    for run in result.scenarios[0].runs:
        print(run.method, run.observed.wall_time, run.observed.downtime_observed)

Everything here is documented where it is defined, and listed in docs/library.md.
"""

import ast
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a name is loaded when it is first asked for: see __getattr__
    from whimbrel.errors import (
        CommandRefused,
        ConfigError,
        HostError,
        HostUnreachable,
        LabError,
        MigrationError,
        PlaceUnknown,
        ProtocolError,
        Unsupported,
        WhimbrelError,
    )
    from whimbrel.hypervisors.qemu import QemuHost
    from whimbrel.lab.accuracy import SuiteResult, run_accuracy
    from whimbrel.lab.audience import Audience
    from whimbrel.lab.bench import run_lab
    from whimbrel.lab.plan import Planned
    from whimbrel.lab.results import write_results, write_suite
    from whimbrel.lab.scenario import load_scenario
    from whimbrel.model.inventory import Capability, MigrationAddress, Vm
    from whimbrel.model.method import (
        Codec,
        Compression,
        Method,
        Policy,
        Postcopy,
        PreparedMemory,
        Settings,
        Transport,
        Tuning,
        tuning_for,
    )
    from whimbrel.model.migration import (
        Decision,
        Event,
        Observation,
        Pass,
        Phase,
        PhaseChange,
        Side,
    )
    from whimbrel.model.outcome import Ending, Outcome
    from whimbrel.model.plan import Goal
    from whimbrel.model.prediction import Interval, Prediction, Verdict
    from whimbrel.model.record import MoveRecord
    from whimbrel.model.scenario import (
        AcceleratorChoice,
        Access,
        AutoSpec,
        Chosen,
        GuestCheck,
        GuestSpec,
        LabResult,
        LinkSpec,
        Load,
        MachineFacts,
        Measure,
        Observed,
        Pattern,
        Run,
        Scenario,
        ScenarioResult,
        Track,
    )
    from whimbrel.model.survey import Depth
    from whimbrel.ports import Hypervisor, Machine, Migration, Reception
    from whimbrel.practice.move import Moved, Request, Watcher, move
    from whimbrel.theory.assessment import Assessment

__all__ = [
    "AcceleratorChoice",
    "Access",
    "Assessment",
    "Audience",
    "AutoSpec",
    "Capability",
    "Chosen",
    "Codec",
    "CommandRefused",
    "Compression",
    "ConfigError",
    "Decision",
    "Depth",
    "Ending",
    "Event",
    "Goal",
    "GuestCheck",
    "GuestSpec",
    "HostError",
    "HostUnreachable",
    "Hypervisor",
    "Interval",
    "LabError",
    "LabResult",
    "LinkSpec",
    "Load",
    "Machine",
    "MachineFacts",
    "Measure",
    "Method",
    "Migration",
    "MigrationAddress",
    "MigrationError",
    "MoveRecord",
    "Moved",
    "Observation",
    "Observed",
    "Outcome",
    "Pass",
    "Pattern",
    "Phase",
    "PhaseChange",
    "PlaceUnknown",
    "Planned",
    "Policy",
    "Postcopy",
    "Prediction",
    "PreparedMemory",
    "ProtocolError",
    "QemuHost",
    "Reception",
    "Request",
    "Run",
    "Scenario",
    "ScenarioResult",
    "Settings",
    "Side",
    "SuiteResult",
    "Track",
    "Transport",
    "Tuning",
    "Unsupported",
    "Verdict",
    "Vm",
    "Watcher",
    "WhimbrelError",
    "load_scenario",
    "move",
    "run_accuracy",
    "run_lab",
    "tuning_for",
    "write_results",
    "write_suite",
]


def __getattr__(name: str) -> Any:
    """Load a public name from where it is defined: a command that needs no lab loads none."""
    if name not in _places():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(_places()[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)


@cache
def _places() -> dict[str, str]:
    """Return the module of each public name, as the imports above say it to type checkers."""
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    lines = [each for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)]
    ours = [each for each in lines if (each.module or "").startswith("whimbrel.")]
    return {alias.name: each.module or "" for each in ours for alias in each.names}
