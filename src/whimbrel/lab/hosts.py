"""Two hosts on one machine: network namespaces joined by links."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

from whimbrel.errors import LabError
from whimbrel.lab.links import MAX_LINKS, addresses, interfaces, join
from whimbrel.lab.namespaces import FOLDER, create_namespace, delete_namespace, uninterrupted
from whimbrel.lab.owner import Owner


@dataclass(frozen=True)
class LabHost:
    """One of the two hosts.

    Attributes:
        name: "a" or "b".
        namespace: The name of its network namespace, "whimbrel-1234-567890-a".
        addresses: Its address on each link; with several links the first is the one to call.
        interfaces: Its interface on each link.
    """

    name: str
    namespace: str
    addresses: tuple[str, ...]
    interfaces: tuple[str, ...]

    def enter(self, command: Sequence[str]) -> list[str]:
        """Return the words that run a command on this host, by exec: the pid stays the same."""
        return ["nsenter", f"--net={FOLDER / self.namespace}", "--", *command]


@contextmanager
def two_hosts(
    rate: float | None, count: int = 1, rates: Sequence[float | None] = ()
) -> Iterator[tuple[LabHost, LabHost]]:
    """Hold two hosts, a and b, joined by `count` links.

    At the end both are removed, with every process that still lives on them. A process holds
    one pair at a time. Building blocks for less than a tenth of a second, also where an event
    loop runs.

    Args:
        rate: Bytes per second of each link in each direction; None leaves it unshaped.
        count: How many links; with several, MPTCP connections use all of them.
        rates: The rate of each link, where they differ; then `rate` and `count` do not count.

    Raises:
        LabError: This user may not make namespaces, or the kernel lacks a part. Nothing stays.
    """
    each = tuple(rates) or (rate,) * count
    count = len(each)
    if not 1 <= count <= MAX_LINKS or any(one is not None and one <= 0 for one in each):
        raise LabError(f"A lab has 1 to {MAX_LINKS} links with a rate above 0.")
    owner = Owner.current()
    a, b = _host("a", 1, owner, count), _host("b", 2, owner, count)
    made: list[str] = []  # a namespace that was there before is not ours to remove

    # An interrupt may leave one of these behind in its thread; the next waits for it.
    one_at_a_time = Lock()

    def build() -> None:
        with one_at_a_time:
            for host in (a, b):
                create_namespace(host.namespace)
                made.append(host.namespace)
            join(a.namespace, b.namespace, rates=each)

    def remove() -> None:
        with one_at_a_time:
            while made:
                delete_namespace(made[-1])
                made.pop()

    try:
        uninterrupted(build)
        yield a, b
    finally:
        try:
            uninterrupted(remove)
        finally:
            # An interrupt may have come just before the first began; after it this does nothing.
            uninterrupted(remove)


def _host(name: str, end: int, owner: Owner, count: int) -> LabHost:
    return LabHost(name, owner.namespace(name), addresses(end, count), interfaces(count))
