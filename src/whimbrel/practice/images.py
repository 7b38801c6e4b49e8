"""Images for copies, on a host: made before a move, kept or removed when it is over.

Only what was made here is removed. A record on the host says what that is, so that it can be
told after whimbrel was killed as well.
"""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress

from whimbrel.errors import CommandRefused, HostError
from whimbrel.ports import Site
from whimbrel.practice.storage_places import DiskCopy

READS_WITHIN = 3600.0
"""Seconds to read a backing file whole on both hosts."""


class Images:
    """The images of one move on the host that they are copied to.

    Args:
        site: That host.
        vm: The VM's name, for the records.
    """

    def __init__(self, site: Site, vm: str) -> None:
        self._site = site
        self._vm = vm
        self._made: dict[str, str] = {}

    async def make(self, copies: Sequence[DiskCopy], source: Site) -> None:
        """Make an image for every copy; after a failure none is left.

        Args:
            copies: What is to be copied.
            source: The host on which the disks lie now; asked only where a copy shall rest on
                a base that must be the same on both.

        Raises:
            CommandRefused: An image is there already, does not fit, or its base is another one.
        """
        try:
            for copy in copies:
                await self._check_bases(copy, source)
                await self._make(copy)
        except BaseException:
            with suppress(HostError):
                await self.remove()
            raise

    async def allocated(self, copies: Sequence[DiskCopy]) -> int | None:
        """Return the bytes that the copies take so far; None where not all are files there."""
        found = await self.each_allocated(copies)
        return None if None in found else sum(each or 0 for each in found)

    async def each_allocated(self, copies: Sequence[DiskCopy]) -> list[int | None]:
        """Return the bytes that each copy takes so far; None for what is no file."""
        paths = [copy.place.path for copy in copies]
        return list(await self._site.ask("image_allocated", paths=paths))

    async def keep(self) -> None:
        """The VM has them now."""
        for token in self._made.values():
            await self._site.ask("image_keep", folder=self._site.folder, token=token)
        self._made.clear()

    async def remove(self, paths: Sequence[str] | None = None) -> None:
        """Remove what was made, all of it or only these.

        Raises:
            HostError: Something could not be removed, and why.
        """
        for path, token in list(self._made.items()):
            if paths is not None and path not in paths:
                continue
            removed = await self._site.ask("image_remove", folder=self._site.folder, token=token)
            if not removed:
                raise CommandRefused(
                    f"{self._site.name}: {path} is not the image that was made for the move, "
                    "so it was not removed."
                )
            del self._made[path]

    async def _make(self, copy: DiskCopy) -> None:
        token = await self._site.ask(
            "image_make",
            folder=self._site.folder,
            vm=self._vm,
            path=copy.place.path,
            image_format=copy.place.format,
            size=copy.facts.size,
            backing=copy.base.path if copy.base else None,
            backing_format=copy.base.format if copy.base else None,
        )
        if token:
            self._made[copy.place.path] = token

    async def _check_bases(self, copy: DiskCopy, source: Site) -> None:
        """Compare all that the copy will rest on; an address names the same on both hosts."""
        if copy.base is None or source is self._site:
            return
        for path in (each.path for each in copy.facts.chain[1:] if "://" not in each.path):
            here, there = await asyncio.gather(
                source.ask("image_fingerprint", path=path, within=READS_WITHIN),
                self._site.ask("image_fingerprint", path=path, within=READS_WITHIN),
            )
            if here != there:
                raise CommandRefused(
                    f"{path}, on which disk {copy.facts.name} rests, is another one on "
                    f"{self._site.name}.",
                    f"Copy it to the same path on {self._site.name}, or copy the whole chain.",
                )


async def settle_images(site: Site, vm: str, used: Collection[str]) -> list[str]:
    """Settle the images that an interrupted move left on a host; return those removed.

    Args:
        site: The host. No machine of the VM may be there but the one that uses `used`.
        vm: The VM's name.
        used: Paths of the images on which the VM runs there: they are kept.
    """
    removed = []
    for held in await site.ask("images_made", folder=site.folder):
        if held["vm"] != vm:
            continue
        path, token = str(held["path"]), held["token"]
        if path in used:
            await site.ask("image_keep", folder=site.folder, token=token)
        elif await site.ask("image_remove", folder=site.folder, token=token):
            removed.append(path)
    return removed
