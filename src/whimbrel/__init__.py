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
        Held,
        HostError,
        HostUnreachable,
        LabError,
        MigrationError,
        NoFeasiblePlan,
        PlaceUnknown,
        ProtocolError,
        Unsupported,
        WhimbrelError,
    )
    from whimbrel.hypervisors.qemu import QemuHost, ResidentHost
    from whimbrel.hypervisors.qemu.compare import QemuExaminer
    from whimbrel.lab.accuracy import SuiteResult, run_accuracy
    from whimbrel.lab.audience import Audience
    from whimbrel.lab.bench import run_lab
    from whimbrel.lab.plan import Planned
    from whimbrel.lab.results import write_results, write_suite
    from whimbrel.lab.scenario import load_scenario
    from whimbrel.model.check import Check, Result
    from whimbrel.model.inventory import Capability, Disk, MigrationAddress, Nic, Vm
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
    from whimbrel.ports import Hypervisor, Journal, Machine, Migration, Reception, Shell, Site
    from whimbrel.practice.journal import FileJournal
    from whimbrel.practice.move import Moved, Request, Watcher, move
    from whimbrel.practice.preflight import PreflightSubject, preflight
    from whimbrel.sites.local import LocalShell
    from whimbrel.sites.site import OnSite
    from whimbrel.sites.ssh import SshPlace, SshShell
    from whimbrel.theory.assessment import Assessment

__all__ = [
    "AcceleratorChoice",
    "Access",
    "Assessment",
    "Audience",
    "AutoSpec",
    "Capability",
    "Check",
    "Chosen",
    "Codec",
    "CommandRefused",
    "Compression",
    "ConfigError",
    "Decision",
    "Depth",
    "Disk",
    "Ending",
    "Event",
    "FileJournal",
    "Goal",
    "GuestCheck",
    "GuestSpec",
    "Held",
    "HostError",
    "HostUnreachable",
    "Hypervisor",
    "Interval",
    "Journal",
    "LabError",
    "LabResult",
    "LinkSpec",
    "Load",
    "LocalShell",
    "Machine",
    "MachineFacts",
    "Measure",
    "Method",
    "Migration",
    "MigrationAddress",
    "MigrationError",
    "MoveRecord",
    "Moved",
    "Nic",
    "NoFeasiblePlan",
    "Observation",
    "Observed",
    "OnSite",
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
    "PreflightSubject",
    "PreparedMemory",
    "ProtocolError",
    "QemuExaminer",
    "QemuHost",
    "Reception",
    "Request",
    "ResidentHost",
    "Result",
    "Run",
    "Scenario",
    "ScenarioResult",
    "Settings",
    "Shell",
    "Side",
    "Site",
    "SshPlace",
    "SshShell",
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
    "preflight",
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
