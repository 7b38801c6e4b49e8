"""A hypervisor in memory, made of theory; for tests, for trying whimbrel out, for teaching.

Two of them on one `SimulatedNetwork` move guests as `theory.simulate` says that QEMU would.
All figures and the `at` of events are simulated seconds; `speed` of them pass in a real one.
What is done to a move on its way changes its course from that moment on. Faults are data, so
that everything that can go wrong can be asked for.

    SimulatedHypervisor ── start ──► SimulatedMachine
            │ receive ──► SimulatedReception, listening on the SimulatedNetwork
            └ send ─────► SimulatedMigration, which plays a `Course`
"""

from whimbrel.hypervisors.simulated.host import (
    EVERYTHING,
    SimulatedHypervisor,
    idle_guest,
    simulated_pair,
)
from whimbrel.hypervisors.simulated.machine import Faults, SimulatedMachine, SimulatedNetwork
from whimbrel.hypervisors.simulated.migration import SimulatedMigration

__all__ = [
    "EVERYTHING",
    "Faults",
    "SimulatedHypervisor",
    "SimulatedMachine",
    "SimulatedMigration",
    "SimulatedNetwork",
    "idle_guest",
    "simulated_pair",
]
