"""The long-lived scheduler: takes what is due, and carries it out.

    the clock wakes ─► which turns are due since the last that is settled? (the store knows)
                         the latest, still within its window ─► claimed ─► a process
                         the others                          ─► missed, with the reason

A turn belongs to whoever claims it in the store, so several schedulers may run. Nothing is lost
when one was down: what was due meanwhile is settled in the same way as soon as it is back.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from whimbrel.errors import ConfigError
from whimbrel.model.job import Job, JobRun, RunState
from whimbrel.model.units import format_time
from whimbrel.schedule.clock import Alarm, times_due
from whimbrel.schedule.command import Command, Launcher, as_whimbrel
from whimbrel.schedule.kept import Jobs, has_ended, holder, missed

LOOK_EVERY = 5.0
"""Seconds after which jobs that were added or removed meanwhile are known at the latest."""

TOLD_APART = 20
"""Missed turns of one job that are kept one by one; what was before them is counted."""

LOST = (
    "The scheduler ended while this ran, and nobody knows how it went: whimbrel recover tells "
    "where the guest is."
)


@dataclass(frozen=True)
class Told:
    """Something the scheduler has to say.

    Attributes:
        run: The turn it is about.
        job: Its job.
    """

    run: JobRun
    job: Job


@dataclass
class Scheduler:
    """Carries out the jobs of a store.

    Attributes:
        jobs: The jobs.
        told: Hears of each turn that is begun, over, missed or lost.
        complained: Hears why the store could not be used for a while.
        launcher: Makes of a job's words the words of a process.
        now: The time, seconds since 1970-01-01 UTC.
    """

    jobs: Jobs
    told: Callable[[Told], None] = lambda _: None
    complained: Callable[[ConfigError], None] = lambda _: None
    launcher: Launcher = as_whimbrel
    now: Callable[[], float] = time.time
    _alarm: Alarm | None = None
    _known: dict[int, Job] = field(default_factory=dict)
    _running: dict[int, Command] = field(default_factory=dict)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _name: str = field(default_factory=holder)

    async def run(self, stopped: asyncio.Event) -> None:
        """Carry out what is due until `stopped` is set, then wait for what still runs."""
        self._alarm = Alarm()
        self._alarm.start()
        try:
            self._alarm.every(LOOK_EVERY, self.look)
            await stopped.wait()
        finally:
            self._alarm.stop()
            await self.finished()

    async def look(self) -> None:
        """Settle all that is due now, and learn of jobs that were added or removed.

        A store that cannot be used now is complained of, and asked again next time.
        """
        try:
            self._settle_lost()
            jobs = {job.number: job for job in self.jobs.all()}
            for number in self._known.keys() - jobs.keys():
                if self._alarm:
                    self._alarm.clear(number)
            for number, job in jobs.items():
                if self._alarm and number not in self._known:
                    self._alarm.set(job, partial(self._wake, job))
                await self._settle(job)
            self._known = jobs
        except ConfigError as error:
            self.complained(error)

    async def finished(self) -> None:
        """Wait until everything that was begun here is over."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def interrupt(self) -> None:
        """Tell every command on its way what Ctrl-C tells it."""
        for command in self._running.values():
            command.interrupt()

    @property
    def busy(self) -> int:
        """How many commands run."""
        return len(self._tasks)

    async def _wake(self, job: Job) -> None:
        try:
            await self._settle(job)
        except ConfigError as error:
            self.complained(error)

    async def _settle(self, job: Job) -> None:
        now = self.now()
        due = times_due(job, self.jobs.seen_until(job), now)
        if not due:
            return
        for when, why in passed_over(due):
            self._miss(job, when, why)
        latest, late = due[-1], now - due[-1]
        if late > job.window:
            self._miss(job, latest, too_late(late, job.window))
        elif any(run.job == job.number for run in self.jobs.running()):
            self._miss(job, latest, "The turn before it was still on its way.")
        else:
            self._begin(job, latest)

    def _begin(self, job: Job, due: float) -> None:
        wanted = JobRun(job.number, due, RunState.RUNNING, self._name, self.now())
        run = self.jobs.claim(wanted)
        if run is None:
            return  # another scheduler was quicker, or the job was removed
        self.told(Told(run, job))
        task = asyncio.create_task(self._carry_out(job, run))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, job: Job, run: JobRun) -> None:
        done = replace(run, state=RunState.DONE)
        try:
            command = await Command.start(job, self.launcher)
        except OSError as error:
            done = replace(done, message=f"It could not be started: {error}")
        else:
            self._running[run.number] = command
            end = await command.ended()
            del self._running[run.number]
            done = replace(done, code=end.code, message=end.message)
        await self._keep(job, replace(done, ended=self.now()))

    async def _keep(self, job: Job, run: JobRun) -> None:
        """Keep a result, however long the store takes to be usable again."""
        while True:
            try:
                run = replace(run, move=self.jobs.move_since(run.began, job.words))
                self.jobs.finish(run)
            except ConfigError as error:
                self.complained(error)
                await asyncio.sleep(LOOK_EVERY)
            else:
                self.told(Told(run, job))
                return

    def _miss(self, job: Job, due: float, why: str) -> None:
        run = self.jobs.claim(missed(job, due, self._name, why, self.now()))
        if run is not None:
            self.told(Told(run, job))

    def _settle_lost(self) -> None:
        for run in self.jobs.running():
            if run.holder != self._name and has_ended(run.holder):
                lost = replace(run, state=RunState.LOST, ended=self.now(), message=LOST)
                self.jobs.finish(lost)
                self.told(Told(lost, self.jobs.get(run.job)))


def passed_over(due: list[float]) -> list[tuple[float, str]]:
    """Return which of several turns due are not carried out, and why: only the latest is."""
    older = due[:-1]
    kept = older[-TOLD_APART:]
    why = "No scheduler ran at its time, and a later turn of this job has come."
    reasons = [why] * len(kept)
    if uncounted := len(older) - len(kept):
        reasons[0] = f"{why} So were {uncounted} turns before it."
    return list(zip(kept, reasons, strict=True))


def too_late(late: float, window: float) -> str:
    """Return why a turn is missed that came too late."""
    return (
        f"No scheduler ran at its time; {format_time(late)} later it was not begun any more, "
        f"since its window is {format_time(window)}."
    )
