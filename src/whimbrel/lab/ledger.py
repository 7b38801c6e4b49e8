"""What a lab has measured so far, so that nothing is lost when it does not reach its end."""

from collections.abc import Iterable
from dataclasses import replace

from whimbrel.lab.facts import machine_facts
from whimbrel.model.scenario import LabResult, Run, Scenario, ScenarioResult


class Ledger:
    """Runs entered as they end; a whole result can be had at any time."""

    def __init__(self, command: str) -> None:
        self._facts = machine_facts("", "", command)
        self._hypervisors: list[str] = []
        self._accelerators: list[str] = []
        self._parts: list[tuple[Scenario, list[Run]]] = []

    def begin(self, scenario: Scenario, hypervisor: str, accelerator: str) -> None:
        """The runs entered from now on belong to this scenario."""
        self._hypervisors.append(hypervisor)
        self._accelerators.append(accelerator)
        self._parts.append((scenario, []))

    def enter(self, run: Run) -> None:
        """A run of the scenario that was begun last is over."""
        self._parts[-1][1].append(run)

    def result(self) -> LabResult:
        """Return all that was entered; scenarios without a run are left out."""
        facts = replace(
            self._facts,
            hypervisor=_distinct(self._hypervisors),
            accelerator=_distinct(self._accelerators),
        )
        parts = (ScenarioResult(scenario, tuple(runs)) for scenario, runs in self._parts if runs)
        return LabResult(facts, tuple(parts))


def _distinct(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(texts))
