"""Moves from or to hosts to which only libvirt leads (libvirt+tls, libvirt+tcp): no shell.

What a shell would do there is left out and said so, or refused where somebody asked for it; what
it would measure is assumed, with a wide band (practice/survey_assumed.py). The guard against a
second whimbrel is libvirt's own lock on the VM: marks lie only on hosts with a shell.
"""

from collections.abc import Sequence

from whimbrel.cli.asked import Asked
from whimbrel.cli.place import LibvirtPlace, Place
from whimbrel.cli.session import Session
from whimbrel.cli.ways import nominal_rate
from whimbrel.errors import ConfigError
from whimbrel.model.check import Check, warned
from whimbrel.model.inventory import Host, MigrationLink
from whimbrel.model.record import MoveRecord
from whimbrel.model.uri import parse_uri
from whimbrel.model.wording import listed
from whimbrel.ports import Machine, Teller
from whimbrel.practice.preflight_bare import SHELL, BareSubject, preflight_bare
from whimbrel.practice.survey import HostProbe
from whimbrel.practice.survey_assumed import Assumed, ToldHost, assumed_link
from whimbrel.practice.survey_site import SiteHost

Pair = tuple[Host, Host]
Arrived = tuple[str, Place]


def bare_of(hosts: Sequence[Host]) -> tuple[str, ...]:
    """Return the names of the hosts to which no shell leads."""
    return tuple(host.name for host in hosts if not parse_uri(host.uri).shell)


def refuse_what_needs_a_shell(asked: Asked, hosts: Sequence[Host]) -> None:
    """Raise `ConfigError` where something was asked for that only a shell could do."""
    bare = bare_of(hosts)
    if not bare:
        return
    wanted = {
        "--storage": bool(asked.storage),
        "--leave": asked.leave is not None,
        "--cpu-budget": asked.cpu_budget is not None,
        "--prepare-network": asked.prepare_network,
    }
    for flag in (each for each, given in wanted.items() if given):
        raise ConfigError(
            f"{flag} needs a shell at both hosts, and only libvirt leads to {listed(bare)}.",
            f"Leave {flag} out. {SHELL}",
        )


async def bare_checks(pair: Pair, places: tuple[Place, Place], machine: Machine) -> list[Check]:
    """Return every check that can be made without a shell, and what cannot.

    Raises:
        HostError: The source cannot be asked.
    """
    here, there = places
    subject = BareSubject(
        machine=machine,
        source=_teller(here),
        destination=_teller(there),
        source_examiner=here.examiner(),
        destination_examiner=there.examiner(),
        bare=bare_of(pair),
    )
    found = list(await preflight_bare(subject))
    budgets = [host.name for host in pair if host.cpu_budget is not None]
    if budgets:
        found.append(
            warned(
                "CPU budget",
                f"The cpu_budget of {listed(budgets)} is planned with and not held: that needs a "
                "shell at both hosts.",
                SHELL,
            )
        )
    return found


def probe_of(session: Session, host: Host, place: Place) -> HostProbe:
    """Return what surveys a host: on it, or by what its libvirt tells."""
    site = session.shell(host.name)
    return ToldHost(_teller(place)) if site is None else SiteHost(site)


async def assumed_between(
    session: Session, pair: Pair, link: MigrationLink, arrived: Arrived, past: Sequence[MoveRecord]
) -> Assumed:
    """Return what the link between two hosts is taken for.

    Args:
        session: The hosts.
        pair: Source and destination.
        link: The destination's migration link.
        arrived: The guest, and what runs it: libvirt remembers how its last move brought it there.
        past: Moves between these hosts that are over.
    """
    if link.rate is not None:
        return assumed_link(link.rate, None, None)
    nic = await nominal_rate(session, pair, link)
    if nic is not None:
        return assumed_link(None, nic, None)
    vm, place = arrived
    seen = [await _teller(place).carried(vm), *map(_rate, past)]
    return assumed_link(None, None, max(filter(None, seen), default=None))


def _rate(record: MoveRecord) -> float | None:
    """Return the bytes per second that a past move sent, all of its time taken together."""
    sent, took = record.observed.wire_bytes, record.observed.total_time
    return sent / took if record.completed and sent and took else None


def _teller(place: Place) -> Teller:
    assert isinstance(place, LibvirtPlace)  # noqa: S101 - only libvirt leads anywhere without a shell
    return place.teller()
