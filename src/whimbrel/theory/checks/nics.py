"""The check of several NICs: whether MPTCP would spread a connection over them."""

from collections.abc import Iterator, Sequence

from whimbrel.model.check import Check, failed, passed, warned
from whimbrel.model.preflight import MptcpFacts

_PORT = 9099  # any that is free: the kernel's own on each announced address


def several_nics(
    here: MptcpFacts,
    there: MptcpFacts,
    further: Sequence[str],
    names: tuple[str, str],
    *,
    needed: bool,
) -> Check:
    """Say whether a connection spreads over the further NICs, and what would let it.

    Args:
        here: How MPTCP is set at the source.
        there: At the destination.
        further: The destination's addresses on the further NICs.
        names: The hosts', source and destination.
        needed: Whether the move was asked to use them; else another way is taken.
    """
    name, count = "several NICs", 1 + len(further)
    for facts, host in zip((here, there), names, strict=True):
        if not facts.known:
            verdict = failed if needed else warned
            return verdict(
                name,
                f"The kernel of {host} has no MPTCP, or there is no program ip to tell of it.",
                f"apt install iproute2   # on {host}; the kernel: Linux 5.18 or newer",
            )
    missing = [*_at_source(here, further, names[0]), *_at_destination(there, further, names[1])]
    if not missing:
        return passed(name, f"MPTCP spreads connections over {count} NICs.")
    verdict = failed if needed else warned
    return verdict(
        name,
        f"MPTCP is not set up to spread connections over the {count} NICs that both hosts have.",
        "\n".join(("--prepare-network   # does it for the move, and takes it back; or", *missing)),
    )


def _at_source(facts: MptcpFacts, further: Sequence[str], host: str) -> Iterator[str]:
    if not facts.enabled:
        yield f"sysctl -w net.mptcp.enabled=1   # on {host}"
    if min(facts.subflows, facts.accepted) < len(further):
        yield _limits(len(further), host)


def _at_destination(facts: MptcpFacts, further: Sequence[str], host: str) -> Iterator[str]:
    if not facts.enabled:
        yield f"sysctl -w net.mptcp.enabled=1   # on {host}"
    if facts.subflows < len(further):
        yield _limits(len(further), host)
    for address in further:
        if address not in facts.announced:
            yield f"ip mptcp endpoint add {address} port {_PORT} signal   # on {host}"


def _limits(count: int, host: str) -> str:
    return f"ip mptcp limits set subflow {count} add_addr_accepted {count}   # on {host}"
