"""The sentences around a table: the result in one line, the machine, and published figures."""

from dataclasses import dataclass

from whimbrel.model.method import Method
from whimbrel.model.scenario import LinkSpec, MachineFacts, Scenario, ScenarioResult
from whimbrel.model.units import GIB, format_link, format_size, format_time
from whimbrel.report.rows import Memory, Row, baseline, rows

TIMES = "\N{MULTIPLICATION SIGN}"
NOTHING = "\N{EN DASH}"
RANGE = "\N{EN DASH}"

SAME_MACHINE = (
    "Both hosts share this one machine: sender and receiver compete for the same cores and "
    "the same memory, and the link between them is software."
)

NESTED = (
    "Both hosts are emulated machines on this one, some ten times slower than it, and the guest is "
    "emulated within them: compare within this table only, with no other table and no real host."
)


@dataclass(frozen=True)
class Reference:
    """Times that somebody else published for a VM of the same size.

    Attributes:
        who: Whose measurement it is.
        figures: What was done, and the time as it was published.
    """

    who: str
    figures: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.who}: " + ", ".join(f"{what} {time}" for what, time in self.figures)


REFERENCE_SOURCE = (
    "published, other hardware: the blog post "
    "\N{LEFT DOUBLE QUOTATION MARK}Live Migration Performance in Theory & "
    "Practice\N{RIGHT DOUBLE QUOTATION MARK}"
)

_REFERENCES = (
    Reference("Finn", (("TCP/IP", "78 s"), ("compressed", "15 s"), ("RDMA and SMB 3", "6.8 s"))),
    Reference("Daisetta Lab", (("TCP/IP", "38 s"), ("compressed", "about 12 s"))),
)


def references(scenario: Scenario) -> tuple[Reference, ...]:
    """Return published times, only for a VM of their size (4 GiB)."""
    return _REFERENCES if scenario.guest.memory == 4 * GIB else ()


def honest(scenario: Scenario) -> str:
    """Return what a table's figures must not be taken for."""
    return NESTED if scenario.nested else SAME_MACHINE


def headline(result: ScenarioResult) -> str:
    """Say the result in one or two sentences, corrupted memory first."""
    table = rows(result)
    corrupt = [row.name for row in table if row.memory is Memory.CORRUPT]
    alarm = f"Memory came through CORRUPT with {_and(corrupt)}. " if corrupt else ""
    return alarm + _fastest(table, baseline(result.scenario))


def _fastest(table: tuple[Row, ...], reference: Method) -> str:
    done = [row for row in table if row.wall_time is not None and row.memory is not Memory.CORRUPT]
    best = min(done, key=_time, default=None)
    if best is None:
        return "No method completed with the guest's memory unharmed."
    time = format_time(_time(best))
    base = next((row for row in table if row.method is reference), None)
    named = "QEMU's default" if reference is Method.QEMU_DEFAULT else f"{reference}"
    if base is not None and base.wall_time is not None and best.faster is not None:
        if best is base:
            return f"No method was faster than {named}, which took {time}."
        return (
            f"{best.name} was {best.faster:.1f} times as fast as {named}: "
            f"{time} instead of {format_time(base.wall_time.median)}."
        )
    fastest = f"{best.name} was the fastest: {time}"
    if base is None or not base.note:
        return f"{fastest}."
    return f"{fastest}; {named}: {base.note}."


def _time(row: Row) -> float:
    return row.wall_time.median if row.wall_time else float("inf")


def _and(names: list[str]) -> str:
    return " and ".join((", ".join(names[:-1]), names[-1]) if len(names) > 1 else names)


def describe_link(link: LinkSpec) -> str:
    """Return a link in words: "2 NICs of 1 Gbit/s"."""
    each = ["unlimited" if rate is None else format_link(rate) for rate in link.each]
    if link.count == 1:
        return each[0]
    nics = f"{link.count} NICs of {_and(list(dict.fromkeys(each)))}"
    return f"a team ({link.team}) of {nics}" if link.team else nics


def describe_scenario(scenario: Scenario) -> str:
    """Return guest, load and link in one line."""
    guest, load = scenario.guest, scenario.guest.redline
    vcpus = "1 vCPU" if guest.vcpus == 1 else f"{guest.vcpus} vCPUs"
    words = [
        f"VM of {format_size(guest.memory)} with {vcpus}",
        f"{format_size(load.fill)} of {load.pattern} in memory",
    ]
    if load.freed:
        words.append(f"{format_size(load.freed)} used and freed")
    if load.dirty_rate:
        words.append(
            f"{format_size(load.dirty_rate)}/s rewritten over {format_size(load.hot)} "
            f"({load.access}, {load.touch} bytes a page)"
        )
    else:
        words.append("nothing rewritten")
    return ", ".join([*words, f"link {describe_link(scenario.link)}"])


def describe_machine(machine: MachineFacts) -> str:
    """Return what the figures were measured on, in one line."""
    cores = "1 core" if machine.cores == 1 else f"{machine.cores} cores"
    nodes = "1 NUMA node" if machine.numa_nodes == 1 else f"{machine.numa_nodes} NUMA nodes"
    return (
        f"{machine.cpu}, {cores}, {nodes}, {format_size(machine.memory)}; "
        f"accelerator {machine.accelerator}; {machine.hypervisor}; Linux {machine.kernel}; "
        f"{machine.distribution}"
    )
