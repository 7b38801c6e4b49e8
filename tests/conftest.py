import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Machines are shared: how long one example takes says nothing about the code.
_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples each time: what fails was changed, not drawn. `search` draws others, and more.
settings.register_profile("whimbrel", _PATIENT, derandomize=True)
settings.register_profile("search", _PATIENT, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "whimbrel"))


LONG = {
    "far/test_broken_postcopy.py",
    "far/test_converged.py",
    "far/test_howto.py",
    "far/test_limited.py",
    "far/test_multinic.py",
    "faults/test_faults.py",
    "libvirtd/test_howto.py",
    "libvirtd/test_definitions.py",
    "libvirtd/test_faults.py",
    "libvirtd/test_interrupted.py",
    "libvirtd/test_moves.py",
    "libvirtd/test_storage.py",
    "libvirtd/test_person.py",
    "libvirtd/test_shellless.py",
    "libvirtd/test_silence.py",
    "libvirtd/test_pools.py",
    "libvirtd/test_survey.py",
    "libvirtd/test_versions.py",
    "qemu/test_beside_others.py",
    "qemu/test_peers.py",
    "qemu/test_recover.py",
}
"""Tests of whole jobs that take a minute or more each: ./run test-long. The daily run stays
under its 25 minutes without them; what they are about has shorter tests there as well."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).resolve().parent
    for item in items:
        if item.path.resolve().relative_to(here).as_posix() in LONG:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session", autouse=True)
def _own_history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests' moves out of the history of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield
