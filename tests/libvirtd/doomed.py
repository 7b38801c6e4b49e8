"""A whimbrel that is killed while libvirt copies disks; run as a program by test_storage.

python doomed.py URI_A URI_B ADDRESS PLACE_A PLACE_B IMAGES [PEER]

PEER is how a's libvirt reaches b's, to lead the move itself; channels then lie where the test
reaches them. PLACE is where a host's site stands: its folder, and the words that enter it, by
spaces.
"""

import asyncio
import sys
from pathlib import Path

from whimbrel.hypervisors.libvirt import LibvirtHost
from whimbrel.model.inventory import MigrationAddress
from whimbrel.model.method import Tuning
from whimbrel.model.migration import Decision, Event, Observation
from whimbrel.model.storage import StorageProgress
from whimbrel.model.units import MIB
from whimbrel.ports import Machine
from whimbrel.practice.move import Request, move
from whimbrel.practice.storage import Hosts, StorageWish, storage_beside
from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite

VM = "writer"


class Loud:
    """A watcher and an onlooker that says when it is under way."""

    def prepared(self, machine: Machine) -> None: ...

    def happened(self, event: Event) -> None:
        if isinstance(event, Observation):
            sys.stdout.write("under way\n")
            sys.stdout.flush()

    def decided(self, decision: Decision) -> None: ...

    def arrived(self, machine: Machine) -> None: ...

    def copying(self, progress: StorageProgress) -> None: ...

    def writes_wait(self, disk: str, reason: str) -> None: ...


def site_at(name: str, place: str) -> OnSite:
    folder, *enter = place.split()
    return OnSite(LocalShell(name, lambda words: [*enter, *words]), folder)


async def main(
    uris: tuple[str, str], address: str, places: tuple[str, str], images: str, peer: str = ""
) -> None:
    async with site_at("a", places[0]) as here, site_at("b", places[1]) as there:
        sockets = str(Path(there.folder).with_name("sockets")) if peer else None
        a = LibvirtHost("a", uris[0], here)
        b = LibvirtHost("b", uris[1], there, peer=peer, sockets=sockets)
        machine = await a.seek(VM)
        assert machine is not None
        slow = Tuning(bandwidth_limit=4.0 * MIB)
        wish = StorageWish((images,))
        async with storage_beside(machine, Hosts(here, there), wish, Loud()) as beside:
            request = Request(
                a,
                machine,
                b,
                MigrationAddress(address),
                slow,
                600.0,
                companions=(beside,),
                vm=beside.vm,
            )
            await move(request, Loud())


if __name__ == "__main__":
    given = sys.argv[1:]
    asyncio.run(main((given[0], given[1]), given[2], (given[3], given[4]), *given[5:]))
