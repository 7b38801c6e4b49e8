"""Reservations of memory, as a host keeps them; this process is the owner, and the VM's too."""

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from whimbrel.sites.onsite import claims
from whimbrel.sites.onsite.claims import (
    claim_memory,
    forget_claims,
    memory_left,
    release_memory,
)

WHOLE = 1 << 30


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A host that has exactly `WHOLE` bytes free."""
    monkeypatch.setattr(claims, "free_memory", lambda page_size=0: WHOLE if not page_size else 0)
    return str(tmp_path / "whimbrel")


def claim(folder: str, name: str, wanted: int, *, vm: str = "", lasting: float = 60.0) -> Any:
    return claim_memory(
        folder=folder, claim=name, vm=vm or name, wanted=wanted, page_size=0, lasting=lasting
    )


def written(folder: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "claims", f"{name}.json").read_text())
    return found


def change(folder: str, name: str, **fields: Any) -> None:
    Path(folder, "claims", f"{name}.json").write_text(json.dumps(written(folder, name) | fields))


def vm_held_by(folder: str, name: str, pid: int) -> None:
    home = Path(folder, "vms", name)
    home.mkdir(parents=True)
    record = {"pid": pid, "start": claims.start_time(pid)}
    (home / "vm.json").write_text(json.dumps(record))


def test_two_moves_do_not_count_on_the_same_memory(folder: str) -> None:
    claim(folder, "one", WHOLE * 3 // 4)
    with pytest.raises(MemoryError, match="moves that come here \\(one\\) claim 768 MiB"):
        claim(folder, "two", WHOLE // 2)
    assert not Path(folder, "claims", "two.json").exists()
    assert release_memory(folder, "one")
    claim(folder, "two", WHOLE // 2)


def test_a_claim_can_be_changed_and_prolonged(folder: str) -> None:
    claim(folder, "one", WHOLE // 2)
    claim(folder, "one", WHOLE)
    assert written(folder, "one")["bytes"] == WHOLE


def test_claims_made_at_the_same_time_are_made_one_after_the_other(folder: str) -> None:
    made: list[str] = []

    def attempt(name: str) -> None:
        try:
            claim(folder, name, WHOLE // 4)
        except MemoryError:
            return
        made.append(name)

    threads = [threading.Thread(target=attempt, args=(f"c{n}",)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4


def test_others_see_what_is_claimed_and_by_whom_but_not_a_vms_own_claim(folder: str) -> None:
    claim(folder, "one", WHOLE // 4, vm="mail")
    left = {"free": WHOLE, "claimed": WHOLE // 4, "claimants": ["mail"]}
    assert memory_left(folder, "web", 0) == left
    assert memory_left(folder, "mail", 0)["claimed"] == 0
    assert memory_left(folder, "web", 2 << 20)["claimed"] == 0


def test_a_claim_ends_with_its_time(folder: str) -> None:
    claim(folder, "one", WHOLE, lasting=0.0)
    claim(folder, "two", WHOLE)


def test_a_claim_ends_with_the_program_that_made_it(folder: str) -> None:
    claim(folder, "one", WHOLE)
    gone = subprocess.Popen(["true"])
    gone.wait()
    change(folder, "one", owner={**written(folder, "one")["owner"], "pid": gone.pid})
    claim(folder, "two", WHOLE)


@pytest.mark.parametrize("field", ["start", "boot"])
def test_a_pid_that_was_used_again_owns_nothing(folder: str, field: str) -> None:
    claim(folder, "one", WHOLE)
    change(folder, "one", owner={**written(folder, "one")["owner"], field: "another"})
    claim(folder, "two", WHOLE)


def test_a_claim_outlives_its_program_while_the_vm_lives(folder: str) -> None:
    claim(folder, "one", WHOLE, vm="mail")
    vm_held_by(folder, "mail", os.getpid())
    change(folder, "one", owner={**written(folder, "one")["owner"], "start": "another"})
    with pytest.raises(MemoryError):
        claim(folder, "two", WHOLE)


def test_what_the_vm_has_taken_is_not_counted_again(folder: str) -> None:
    claim(folder, "one", WHOLE, vm="mail")
    vm_held_by(folder, "mail", os.getpid())
    resident = claims.resident_bytes(os.getpid())
    [left] = [each["outstanding"] for each in claims.claims(folder)]
    assert WHOLE - 2 * resident < left < WHOLE


def test_what_nobody_owns_is_swept_away(folder: str) -> None:
    claim(folder, "one", WHOLE, lasting=0.0)
    claim(folder, "two", WHOLE)
    release_memory(folder, "two")
    assert not list(Path(folder, "claims").glob("*.json"))


def test_releasing_what_is_not_there_is_harmless(folder: str) -> None:
    assert not release_memory(folder, "one")
    claim(folder, "one", 1)
    assert not release_memory(folder, "two")
    assert not release_memory(folder, "../one")


def test_claims_are_private_and_named_by_plain_words(folder: str) -> None:
    claim(folder, "one", 1)
    assert Path(folder).stat().st_mode & 0o777 == 0o700
    assert Path(folder, "claims").stat().st_mode & 0o777 == 0o700
    assert Path(folder, "claims", "one.json").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ValueError, match="plain word"):
        claim(folder, "../one", 1)
    with pytest.raises(ValueError, match="plain word"):
        claim(folder, "one", 1, vm="../mail")


def test_an_unreadable_claim_holds_up_nobody(folder: str) -> None:
    claim(folder, "one", WHOLE // 2)
    Path(folder, "claims", "torn.json").write_text("{")
    claim(folder, "two", WHOLE // 2)


def test_free_memory_is_what_this_host_can_give() -> None:
    free = claims.free_memory()
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < free <= total
    assert claims.free_memory(4096 * 3) == 0


def test_what_a_dead_whimbrel_claimed_can_be_given_up_though_its_vm_lives(folder: str) -> None:
    claim(folder, "dead", WHOLE // 2, vm="web")
    change(folder, "dead", owner={**written(folder, "dead")["owner"], "start": 1})
    claim(folder, "alive", WHOLE // 4, vm="web")
    claim(folder, "other", WHOLE // 4, vm="other")
    vm_held_by(folder, "web", os.getpid())
    assert forget_claims(folder, "web") == 1
    assert not Path(folder, "claims", "dead.json").exists()
    assert written(folder, "alive")["vm"] == "web"
    assert forget_claims(folder, "web") == 0


def test_where_nothing_was_ever_claimed_nothing_is_given_up(folder: str) -> None:
    assert forget_claims(folder, "web") == 0
