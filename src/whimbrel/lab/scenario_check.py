"""Which scenarios the lab can run: every rule about values, whoever wrote them.

The same rules hold for a file and for flags of the command line, so they stand apart from
both and speak of a scenario's keys by their names in the file.
"""

import math
from collections.abc import Iterator

from whimbrel.errors import ConfigError
from whimbrel.model.method import Settings
from whimbrel.model.policy import LONGEST_DOWNTIME
from whimbrel.model.scenario import AutoSpec, GuestSpec, LinkSpec, Load, Scenario
from whimbrel.model.units import MIB, PAGE, format_size

GUEST_ROOM = 96 * MIB
"""Guest memory beyond fill and freed that its kernel and redline need for themselves."""
SMALLEST_GUEST = 128 * MIB
"""The least memory a guest of the lab gets."""
MOST_CHANNELS = 255
"""QEMU keeps multifd-channels in eight bits."""
MOST_LINKS = 8
"""As many as the lab builds (`links.MAX_LINKS`, not imported here: it brings netlink along)."""

Problems = Iterator[tuple[str, str]]


def check(scenario: Scenario, origin: str) -> None:
    """Raise one `ConfigError` that tells everything in a scenario that cannot be used.

    `origin` is the file, or "command line"; it stands before every complaint.
    """
    found = [f"{origin}: {key}: {problem}." for key, problem in _problems(scenario)]
    if found:
        raise ConfigError("\n".join(found))


def default_fill(memory: int, freed: int = 0) -> int:
    """Return how many bytes to fill where nobody said: seven eighths, and room to live."""
    return max(0, min(memory * 7 // 8, memory - freed - GUEST_ROOM))


def _problems(scenario: Scenario) -> Problems:
    if not scenario.name.strip():
        yield "name", "must not be empty"
    yield from _at_least("repeats", scenario.repeats, 1)
    if not scenario.methods:
        yield "methods", "must name at least one method"
    if len(set(scenario.methods)) < len(scenario.methods):
        yield "methods", "must name each method once"
    yield from _positive("timeout", scenario.timeout)
    yield from _link_problems(scenario.link)
    if scenario.modules is not None and scenario.kernel is None:
        yield "modules", "belong to a kernel: set kernel as well"
    yield from _settings_problems(scenario.settings)
    yield from _auto_problems(scenario.auto)
    yield from _guest_problems(scenario.guest)


def _settings_problems(settings: Settings) -> Problems:
    yield from _positive("downtime_limit", settings.downtime_limit)
    if settings.downtime_limit > LONGEST_DOWNTIME:
        yield "downtime_limit", f"must be at most {LONGEST_DOWNTIME:g} s"
    yield from _positive("bandwidth_limit", settings.bandwidth_limit)
    if not 1 <= settings.channels <= MOST_CHANNELS:
        yield "channels", f"must be 1 to {MOST_CHANNELS}, not {settings.channels}"
    codec, level = settings.compression.codec, settings.compression.level
    if codec.highest == 1 != level:
        yield "compression", f"{codec} has no levels"
    elif not 1 <= level <= codec.highest:
        yield "compression", f"{codec} has levels 1 to {codec.highest}, not {level}"
    if settings.xbzrle_cache < PAGE:
        yield "xbzrle_cache", f"must hold at least one page ({format_size(PAGE)})"
    if settings.prepared_memory is not None:
        yield from _at_least("prepare_threads", settings.prepared_memory.threads, 1)


def _link_problems(link: LinkSpec) -> Problems:
    for rate in link.each[:MOST_LINKS]:
        yield from _positive("link.rate", rate)
    if not 1 <= link.count <= MOST_LINKS:
        yield "link.count", f"must be 1 to {MOST_LINKS}, not {link.count}"
    elif link.rates and len(link.rates) != link.count:
        yield "link.count", f"must be {len(link.rates)}, the number of rates, not {link.count}"


def _auto_problems(auto: AutoSpec) -> Problems:
    yield from _positive("auto.max_downtime", auto.max_downtime)
    yield from _positive("auto.deadline", auto.deadline)
    yield from _positive("auto.cpu_budget", auto.cpu_budget)


def _guest_problems(guest: GuestSpec) -> Problems:
    yield from _at_least("guest.vcpus", guest.vcpus, 1)
    yield from _load_problems(guest.redline)
    load = guest.redline
    if guest.memory < SMALLEST_GUEST:
        yield "guest.memory", f"must be at least {format_size(SMALLEST_GUEST)}"
    elif guest.memory < load.fill + load.freed + GUEST_ROOM:
        yield "guest.memory", _too_small(guest)


def _load_problems(load: Load) -> Problems:
    if load.fill <= 0:
        yield "guest.redline.fill", "must be more than 0"
    if load.hot > load.fill:
        hot, fill = format_size(load.hot), format_size(load.fill)
        yield "guest.redline.hot", f"{hot} is more than the fill ({fill}) it is a part of"
    if not 1 <= load.touch <= PAGE:
        yield "guest.redline.touch", f"must be 1 to {PAGE} bytes, not {load.touch}"
    if load.freed < 0 or load.hot < 0:
        yield "guest.redline", "hot and freed must not be less than 0"
    if not math.isfinite(load.dirty_rate) or load.dirty_rate < 0:
        yield "guest.redline.dirty_rate", "must not be less than 0"
    if load.dirty_rate > 0 and load.hot == 0:
        yield "guest.redline.dirty_rate", "needs memory to rewrite: set guest.redline.hot"


def _too_small(guest: GuestSpec) -> str:
    load = guest.redline
    freed = f" and {format_size(load.freed)} freed" if load.freed else ""
    needed = -(-(load.fill + load.freed + GUEST_ROOM) // MIB)
    most = max(0, guest.memory - load.freed - GUEST_ROOM) // MIB
    return (
        f"{format_size(guest.memory)} is too small for {format_size(load.fill)} of fill{freed}, "
        f"because the guest's kernel needs {format_size(GUEST_ROOM)} for itself; "
        f"set guest.memory to at least {needed} MiB, or guest.redline.fill to at most {most} MiB"
    )


def _positive(key: str, value: float | None) -> Problems:
    if value is not None and not (math.isfinite(value) and value > 0):
        yield key, "must be more than 0"


def _at_least(key: str, value: int, least: int) -> Problems:
    if value < least:
        yield key, f"must be at least {least}, not {value}"
