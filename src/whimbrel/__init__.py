"""whimbrel moves running virtual machines between hosts without stopping them.

    import asyncio
    import whimbrel

    scenario = whimbrel.Scenario(methods=(whimbrel.Method.TCP, whimbrel.Method.MULTICHANNEL))
    result = asyncio.run(whimbrel.run_lab([scenario]))
    for run in result.scenarios[0].runs:
        print(run.method, run.observed.wall_time, run.observed.downtime_observed)

Everything here is documented where it is defined, and listed in docs/library.md.
"""

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
from whimbrel.lab.audience import Audience
from whimbrel.lab.bench import run_lab
from whimbrel.lab.plan import Planned
from whimbrel.lab.results import write_results
from whimbrel.lab.scenario import load_scenario
from whimbrel.model.inventory import Capability, MigrationAddress, Vm
from whimbrel.model.method import (
    Codec,
    Compression,
    Method,
    Postcopy,
    PreparedMemory,
    Settings,
    Transport,
    Tuning,
    tuning_for,
)
from whimbrel.model.migration import Decision, Event, Observation, Pass, Phase, PhaseChange, Side
from whimbrel.model.outcome import Ending, Outcome
from whimbrel.model.scenario import (
    AcceleratorChoice,
    Access,
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
from whimbrel.ports import Hypervisor, Machine, Migration, Reception
from whimbrel.practice.move import Moved, Request, Watcher, move

__all__ = [
    "AcceleratorChoice",
    "Access",
    "Audience",
    "Capability",
    "Codec",
    "CommandRefused",
    "Compression",
    "ConfigError",
    "Decision",
    "Ending",
    "Event",
    "GuestCheck",
    "GuestSpec",
    "HostError",
    "HostUnreachable",
    "Hypervisor",
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
    "Postcopy",
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
    "Track",
    "Transport",
    "Tuning",
    "Unsupported",
    "Vm",
    "Watcher",
    "WhimbrelError",
    "load_scenario",
    "move",
    "run_lab",
    "tuning_for",
    "write_results",
]
