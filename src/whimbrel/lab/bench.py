"""The lab's main job: every scenario, every method, one real move after the other."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from whimbrel.errors import ConfigError
from whimbrel.lab.accelerator import Accelerator, choose_accelerator
from whimbrel.lab.audience import Audience, Nobody
from whimbrel.lab.folders import run_folder
from whimbrel.lab.forecast import Said, foresee, record_of
from whimbrel.lab.guests import Guest, boot, guest_vm
from whimbrel.lab.image import Image, build_image
from whimbrel.lab.kernel import find_kernel
from whimbrel.lab.ledger import Ledger
from whimbrel.lab.leftovers import find_leftovers, remove_leftovers
from whimbrel.lab.measured import measured_move
from whimbrel.lab.plan import Planned, Planning, plan
from whimbrel.lab.scenario_check import check
from whimbrel.lab.stage import Stage, Staging, stage
from whimbrel.model.method import Method
from whimbrel.model.outcome import Ending
from whimbrel.model.record import MoveRecord
from whimbrel.model.scenario import LabResult, Run, Scenario
from whimbrel.theory.situation import Earlier


async def run_lab(
    scenarios: Sequence[Scenario],
    audience: Audience | None = None,
    command: str = "whimbrel lab",
    past: Iterable[MoveRecord] = (),
    *,
    planning: Planning = plan,
    staging: Staging = stage,
) -> LabResult:
    """Run scenarios on this machine and return everything that was measured.

    Whatever a killed lab left is removed first; whatever this one makes is removed at its end.

    Args:
        scenarios: What to run, in order; each is held to the rules of a scenario file.
        audience: Who is told on the way, and after each run of all that was measured so far.
        command: The command line that reproduces it, for the report.
        past: Moves of this lab that are over, in the order they were made; forecasts learn
            from them, and from those of this run as they end.
        planning: Says which moves a scenario means.
        staging: Makes what they are made on.

    Raises:
        ConfigError: There is no scenario, or one cannot be used.
        LabError: The lab cannot be built here; the hint says what is needed.
        HostError: QEMU is missing or does not start.
    """
    _check(scenarios)
    seen_by = audience or Nobody()
    for sentence in await asyncio.to_thread(lambda: remove_leftovers(find_leftovers())):
        seen_by.says(sentence)
    ledger, history = Ledger(command), list(past)
    with run_folder() as folder:
        for number, scenario in enumerate(scenarios, start=1):
            image, accelerator = await _bootable(scenario, seen_by)
            place = folder / str(number)
            bench = _Bench(
                scenario,
                place,
                image,
                accelerator,
                ledger=ledger,
                history=history,
                audience=seen_by,
            )
            await bench.run(planning(scenario), staging)
    return ledger.result()


def _check(scenarios: Sequence[Scenario]) -> None:
    if not scenarios:
        raise ConfigError("There is no scenario to run.")
    for scenario in scenarios:
        check(scenario, scenario.name)


async def _bootable(scenario: Scenario, audience: Audience) -> tuple[Image, Accelerator]:
    """Prepare what a guest boots; may fetch and compile, hence off the event loop."""
    kernel = await asyncio.to_thread(
        find_kernel, image=scenario.kernel, modules=scenario.modules, progress=audience.says
    )
    image = await asyncio.to_thread(build_image, kernel, audience.says)
    accelerator = await asyncio.to_thread(
        choose_accelerator, scenario.accelerator, image, progress=audience.says
    )
    audience.says(f"Guests run under {accelerator.reason}.")
    return image, accelerator


class _Bench:
    """One scenario being run."""

    def __init__(
        self,
        scenario: Scenario,
        folder: Path,
        image: Image,
        accelerator: Accelerator,
        *,
        ledger: Ledger,
        history: list[MoveRecord],
        audience: Audience,
    ) -> None:
        self._accelerator = accelerator
        self._ledger = ledger
        self._scenario = scenario
        self._folder = folder
        self._image = image
        self._audience = audience
        self._guest: Guest | None = None
        self._history = history
        self._seen: list[tuple[float, float]] = []

    async def run(self, planned: Sequence[Planned], staging: Staging) -> None:
        """Make every move planned, and add those that teach to the history."""
        self._audience.scenario_begins(self._scenario, len(planned))
        async with staging(self._scenario, self._folder) as on:
            version = (await on.a.hypervisor.abilities()).version
            self._ledger.begin(self._scenario, f"QEMU {version}", self._accelerator.reason)
            if self._scenario.link.count > 1 and not on.mptcp:
                self._audience.says("MPTCP is not available: each move uses the first NIC only.")
            for move in planned:
                self._audience.run_begins(move)
                run = await self._one(on, move)
                self._ended(replace(run, preset=move.preset))

    def _ended(self, run: Run) -> None:
        self._ledger.enter(run)
        self._audience.run_ended(run)
        self._audience.measured(self._ledger.result())

    async def _one(self, on: Stage, planned: Planned) -> Run:
        lacking = planned.hindrance or await on.lacking(planned.tuning)
        if lacking:
            return Run(planned.method, None, planned.repeat, Ending.NOT_AVAILABLE, lacking)
        guest = await self._guest_for(on, planned)
        await guest.free_again(self._audience)
        said = await self._foreseen(on, guest, planned)
        if said is None:
            return await self._measured(on, guest, planned)
        self._audience.foreseen(said.prediction)
        looked = said.surveyed.duration
        if said.refused:
            return replace(refused(planned, said), survey_time=looked)
        began = time.time()
        first = await self._measured(on, guest, replace(planned, tuning=said.tuning), said)
        first = replace(first, predicted=said.prediction, pucker=said.pucker, chosen=said.chosen)
        second = await self._anew(on, planned, said, first)
        record = last_attempt(first, second, said, (began, time.time()))
        if record.ending is not Ending.NOT_AVAILABLE:
            self._history.append(record)
            self._audience.moved(record)
        run = first if second is None else changed_course(first, second)
        return replace(run, survey_time=looked)

    async def _anew(self, on: Stage, planned: Planned, said: Said, first: Run) -> Run | None:
        """Begin a move anew that the guard called back; None where there is nothing to begin."""
        left = said.timeout - (first.observed.wall_time or 0.0)
        if first.ending is not Ending.CANCELLED or said.fallback is None or self._guest is None:
            return None
        if left <= 0:
            return None
        self._audience.says(f"{planned.method} begins anew by post-copy: {first.reason}")
        taken = replace(planned, tuning=said.fallback)
        return await self._measured(on, self._guest, taken, within=left)

    async def _foreseen(self, on: Stage, guest: Guest, planned: Planned) -> Said | None:
        if self._scenario.survey is None and planned.method is not Method.AUTO:
            return None
        self._audience.works("surveying the guest, the link and the hosts", 0.0)
        await on.warm.held()
        # One seed for each run: what was said can be said again.
        generator = np.random.default_rng(planned.number)
        earlier = seen_before(self._seen, time.monotonic())
        said = await foresee(
            on,
            guest,
            planned,
            self._scenario,
            generator,
            earlier=earlier,
            past=self._history,
        )
        rate = said.surveyed.survey.memory.dirty.write_rate
        self._seen.append((time.monotonic(), rate))
        return said

    async def _measured(
        self,
        on: Stage,
        guest: Guest,
        planned: Planned,
        said: Said | None = None,
        *,
        within: float | None = None,
    ) -> Run:
        deadline = self._scenario.timeout if said is None else said.timeout
        if within is not None:
            deadline = within
        measured = await measured_move(on, guest, planned, deadline, self._audience, said=said)
        self._guest = measured.guest
        return measured.run

    async def _guest_for(self, on: Stage, planned: Planned) -> Guest:
        wanted = planned.tuning.free_page_hints
        if self._guest is not None and self._guest.machine.vm.free_page_hints is not wanted:
            on.beats.remove(self._guest.label)
            await self._guest.machine.stop()
            self._guest = None
        if self._guest is None:
            self._seen.clear()
            await on.warm.hold()
            vm = guest_vm(self._scenario, self._image, self._accelerator, free_page_hints=wanted)
            self._guest = await boot(on, vm, self._scenario.guest.redline, self._audience)
        return self._guest


def refused(planned: Planned, said: Said) -> Run:
    """Return the run of a move that was not begun, with what was said of it."""
    return Run(
        method=planned.method,
        tuning=None,
        repeat=planned.repeat,
        ending=Ending.NOT_AVAILABLE,
        reason=said.refused,
        predicted=said.prediction,
        pucker=said.pucker,
        chosen=said.chosen,
    )


def seen_before(seen: Sequence[tuple[float, float]], now: float) -> tuple[Earlier, ...]:
    """Return what surveys of the same guest found before, as a plan wants to know it.

    Args:
        seen: When it was looked at, seconds of some clock, and its writes per second then.
        now: Seconds of the same clock.
    """
    return tuple(Earlier(now - at, rate) for at, rate in seen)


def last_attempt(
    first: Run, second: Run | None, said: Said, times: tuple[float, float]
) -> MoveRecord:
    """Return what a history keeps of a move: its last attempt, with what that was set to.

    A move that was called back and begun anew is one move. The figures of two attempts under
    the settings of one would teach what never happened.

    Args:
        first: The first attempt.
        second: The second; None where there was none.
        said: What was said before the first.
        times: When it was asked for and when it was over, seconds since 1970-01-01 UTC.
    """
    last = second or first
    return replace(record_of(last, said, *times), tuning=last.tuning or said.tuning)


def changed_course(first: Run, second: Run) -> Run:
    """Return what became of a move that was given up and begun anew as one run.

    The time and the bytes of both count; what was predicted was said before the first.
    """
    times = (first.observed.wall_time, second.observed.wall_time)
    sent = (first.observed.wire_bytes, second.observed.wire_bytes)
    observed = replace(
        second.observed,
        wall_time=None if None in times else sum(t or 0.0 for t in times),
        wire_bytes=None if None in sent else sum(b or 0 for b in sent),
    )
    chosen = first.chosen and replace(
        first.chosen,
        method=Method.POSTCOPY,
        reasons=(*first.chosen.reasons, f"changed course: {first.reason}"),
    )
    return replace(
        second,
        observed=observed,
        predicted=first.predicted,
        pucker=first.pucker,
        chosen=chosen,
        decisions=(*first.decisions, *second.decisions),
    )
