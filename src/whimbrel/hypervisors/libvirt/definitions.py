"""Where libvirt remembers a VM after a move that nobody saw to its end.

A move takes the definition along (PERSIST_DEST) and away (UNDEFINE_SOURCE). Who leads it does the
latter last of all, so that a leader that died leaves the source with the definition of a VM that
runs elsewhere: started there, it would run twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from whimbrel.hypervisors.libvirt.host import LibvirtHost


async def follow_guest(vm: str, left: LibvirtHost, home: LibvirtHost) -> str:
    """Let the definition of a VM be where its guest runs now.

    Args:
        vm: Its name.
        left: The host it left; nothing is done while it lives there.
        home: The host it runs on.

    Returns:
        What was done, a sentence; empty where there was nothing to do.

    Raises:
        HostError: One of both cannot be asked, or libvirt refuses.
    """
    behind = await (await left.connection()).domain(vm)
    if behind is None or (await behind.state()).lives or not await behind.persistent():
        return ""
    here = await (await home.connection()).domain(vm)
    if here is None or here.id != behind.id or not (await here.state()).runs:
        return ""
    if not await here.persistent():
        await here.connection.define(await here.kept_xml())
    await behind.forget()
    return f"{vm} is defined on {home.name} now, where it runs, and on {left.name} no more."
