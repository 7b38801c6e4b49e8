"""A host without room says where room is to be made."""

from whimbrel.sites.local import LocalShell
from whimbrel.sites.site import OnSite


def test_a_full_host_is_told_with_the_folder() -> None:
    site = OnSite(LocalShell("b"), "/run/whimbrel")
    refusal = site._refused("[Errno 28] No space left on device")
    assert refusal.what == "b: [Errno 28] No space left on device"
    assert "/run/whimbrel" in refusal.hint
    assert site._refused("no such VM").hint == ""
