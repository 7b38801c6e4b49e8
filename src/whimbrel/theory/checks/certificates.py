"""Checks of the user's own certificates: QEMU finds them where whimbrel.toml says."""

from collections.abc import Mapping

from whimbrel.model.check import Check, failed, passed
from whimbrel.model.preflight import PlaceFacts


def certificates(found: Mapping[str, PlaceFacts], folder: str, host: str) -> Check:
    """Fail where a file that QEMU needs is not there, or cannot be read.

    Args:
        found: What lies at each file's name.
        folder: Where they were looked for.
        host: The name of the host.
    """
    name = f"certificates on {host}"
    missing = [file for file, place in found.items() if place.kind == "missing"]
    if missing:
        return failed(
            name,
            f"There is no {' and no '.join(missing)} in {folder} on {host}.",
            f"Put them there, or leave out `certificates` of {host}: a key is then made for each "
            "move.",
        )
    closed = [file for file, place in found.items() if place.kind != "file" or not place.regions]
    if closed:
        return failed(
            name,
            f"{' and '.join(closed)} in {folder} on {host} cannot be read.",
            f"ls -l {folder}   # on {host}; whimbrel's user there must be able to read them",
        )
    return passed(name, f"All that QEMU needs is in {folder}.")
