"""What hosts tell of themselves, read: idle cores, facts, and what moving memory costs there.

The questions `idle`, `facts`, `cost` and `cipher` are answered by a program on the host itself
(sites/onsite). What only a move can tell (set-up, device state, stopping) is not asked: it comes
with the profile that past moves have left.
"""

import resource
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from whimbrel.model.memory import CipherCost, HostProfile
from whimbrel.model.method import Compression
from whimbrel.model.survey import HostFacts, NumaNode
from whimbrel.practice.survey_content import Shortened

ERROR = 0.05
"""Relative uncertainty of a host's seconds: what was timed here is not yet a hypervisor."""

Shortenings = dict[Compression, Shortened]
"""What each codec made of the guest's pages."""


@dataclass(frozen=True)
class Idle:
    """The host's cores since boot; subtract two of them.

    Attributes:
        at: Seconds.
        idle: Seconds that cores were idle, or busy for the survey only, all cores together.
    """

    at: float
    idle: float


def spare_cores(before: Idle, after: Idle) -> float:
    """Return the cores that were idle between two readings, the first before the second."""
    seconds = max(after.at - before.at, 1e-6)
    return max(0.0, (after.idle - before.idle) / seconds)


def own_cpu() -> float:
    """Return the CPU seconds of this process and the children it has waited for."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in usage)


def facts_from(told: Mapping[str, Any]) -> HostFacts:
    """Read the answer to the question `facts`."""
    return HostFacts(
        cores=int(told["cores"]),
        available_memory=int(told["spare_memory"]),
        memory=int(told["memory"]),
        huge_page=int(told["huge_pages"]["size"]),
        free_huge_pages=int(told["huge_pages"]["free"]),
        nodes=tuple(NumaNode(tuple(each["cores"]), int(each["free"])) for each in told["nodes"]),
        boot_id=str(told.get("boot_id", "")),
    )


def profile_from(
    base: HostProfile, told: Mapping[str, Any], shortened: Shortenings, here: float
) -> HostProfile:
    """Return the profile with what the host measured of itself.

    Args:
        base: What past moves, or the defaults, say; `spare_cores` stays.
        told: The answer to the question `cost`.
        shortened: What each codec made of the guest's pages where whimbrel runs.
        here: Bytes per second that a core there takes of the sample; 0: codecs are not scaled.
    """
    faster = float(told["deflate"]) / here if here > 0 and told["deflate"] > 0 else 1.0
    timed = {codec: found for codec, found in shortened.items() if found.speed > 0}
    return replace(
        base,
        copy_seconds=float(told["copy"]),
        receive_seconds=float(told["receive"]),
        scatter_seconds=float(told["scatter"]),
        touch_seconds=float(told["touch"]),
        error=max(base.error, ERROR),
        compress_speed={
            **base.compress_speed,
            **{codec: found.speed * faster for codec, found in timed.items()},
        },
        restore_speed={
            **base.restore_speed,
            **{codec: found.restoring * faster for codec, found in timed.items()},
        },
    )


def ciphered(profile: HostProfile, told: Mapping[str, Any] | None) -> HostProfile:
    """Return the profile with what TLS costs, as the question `cipher` was answered.

    A host that could not say (None) keeps what `profile` has.
    """
    if told is None:
        return profile
    encrypting, decrypting = (
        CipherCost(float(told[end]["speed"]), float(told[end]["record"]))
        for end in ("encrypt", "decrypt")
    )
    return replace(profile, encrypting=encrypting, decrypting=decrypting)
