"""Whether a post-copy that lost its connection can be taken up again through libvirt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from whimbrel.errors import CommandRefused, HostError, Unsupported

if TYPE_CHECKING:
    from whimbrel.hypervisors.libvirt.connection import Connection

DIES_OF_RESUMING = range(11003000, 11004000)
"""Versions of libvirt whose daemon crashes at VIR_MIGRATE_POSTCOPY_RESUME (found with 11.3.0)."""

GOES_ON_WITHIN = 10.0
"""Seconds in which a post-copy that QEMU carries on by itself is seen to send something."""


_BY_VIRSH = (
    "As long as both sides live: virsh migrate --live --postcopy --postcopy-resume. Else the guest "
    "is to be given up."
)


async def require_resuming(destination: Connection) -> None:
    """Raise `Unsupported` where the destination's libvirt would not survive it."""
    if (await destination.versions()).daemon in DIES_OF_RESUMING:
        raise Unsupported(
            f"libvirt 11.3 on host {destination.name} dies when it is asked to take up a "
            "post-copy again.",
            f"Let that host have one newer than 11.3, which costs no guest. {_BY_VIRSH}",
        )


def nobody_leads(silent: float) -> HostError:
    """Return why a post-copy that another process began is not taken up by this one.

    When its leader dies libvirt says that its connection is lost, also where QEMU, on both sides,
    goes on with it to its end.

    Args:
        silent: Seconds since something of it was sent.
    """
    if silent < GOES_ON_WITHIN:
        return CommandRefused("libvirt has nobody to lead the post-copy; QEMU may still go on.")
    return Unsupported(
        "libvirt takes up a post-copy only for whoever began it.",
        f"virsh of a libvirt newer than 11.3 can. {_BY_VIRSH}",
    )
