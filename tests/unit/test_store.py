"""The store keeps what it is given, for its owner alone, under several whimbrels at once."""

import json
import multiprocessing
import os
import sqlite3
import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from unit.records import copied, moved
from whimbrel.errors import ConfigError
from whimbrel.model.method import Method, Tuning
from whimbrel.model.outcome import Ending
from whimbrel.model.prediction import Interval
from whimbrel.model.record import MoveRecord
from whimbrel.store import MIGRATIONS, Store, default_path, migrate

MOVE = moved()
BARE = MoveRecord(5.0, 6.0, "a", "b", "bare", Method.RDMA, Tuning(), Ending.FAILED)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "moves.sqlite"


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def test_a_move_comes_back_as_it_was_given(path: Path) -> None:
    with Store.open(path) as store:
        numbers = [store.add(MOVE), store.add(BARE)]
    with Store.open(path) as store:
        assert store.moves() == (replace(MOVE, number=numbers[0]), replace(BARE, number=numbers[1]))


def test_what_became_of_disks_is_kept(path: Path) -> None:
    with_disks = copied(4.0, 5.0, pace=0.7)
    with Store.open(path) as store:
        number = store.add(with_disks)
        assert store.moves() == (replace(with_disks, number=number),)


def test_numbers_that_json_cannot_say_are_kept(path: Path) -> None:
    assert MOVE.prediction
    endless = replace(MOVE.prediction, total_time=Interval(1.0, 2.0, float("inf")))
    with Store.open(path) as store:
        store.add(replace(MOVE, prediction=endless))
        assert store.moves()[0].prediction == endless


def test_the_latest_come_first_and_as_many_as_were_asked_for(path: Path) -> None:
    with Store.open(path) as store:
        for began in (3.0, 1.0, 2.0):
            store.add(replace(BARE, began=began))
        assert [each.began for each in store.moves()] == [3.0, 2.0, 1.0]
        assert [each.began for each in store.moves(2)] == [3.0, 2.0]


def test_moves_are_found_by_host_method_and_vm(path: Path) -> None:
    records = [
        BARE,
        replace(BARE, source="c", destination="a"),
        replace(BARE, source="c", destination="d", method=Method.TCP, vm="other"),
    ]
    with Store.open(path) as store:
        for record in records:
            store.add(record)
        assert len(store.moves(host="a")) == 2
        assert len(store.moves(host="c")) == 2
        assert len(store.moves(method=Method.TCP)) == 1
        assert len(store.moves(vm="bare", host="c")) == 1
        assert store.moves(host="a' OR 1=1 --") == ()


def test_only_moves_that_ended_before_are_told_for_calibration(path: Path) -> None:
    with Store.open(path) as store:
        for ended in (10.0, 20.0, 30.0):
            store.add(replace(BARE, ended=ended))
        store.add(replace(BARE, ended=5.0, source="b", destination="a"))
        assert [each.ended for each in store.records_before(20.0, "a", "b")] == [10.0]
        assert len(store.records_before(99.0, "a", "b", limit=2)) == 2


def test_every_document_names_its_schema(path: Path) -> None:
    with Store.open(path) as store:
        store.add(MOVE)
    with closing(sqlite3.connect(path)) as connection:
        columns = ("tuning", "survey", "prediction", "observed")
        row = connection.execute(f"SELECT {', '.join(columns)} FROM moves").fetchone()  # noqa: S608
    schemas = [json.loads(text)["schema"] for text in row]
    assert schemas == [f"whimbrel.{column}/1" for column in columns]


def test_folder_and_file_are_for_their_owner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    before = os.umask(0)
    try:
        with Store.open() as store:
            store.add(BARE)
    finally:
        os.umask(before)
    path = default_path()
    assert path == tmp_path / "state" / "whimbrel" / "moves.sqlite"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_what_was_open_to_others_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "whimbrel").mkdir(mode=0o755)
    default_path().touch(mode=0o644)
    with Store.open():
        pass
    assert stat.S_IMODE(default_path().stat().st_mode) == 0o600
    assert stat.S_IMODE(default_path().parent.stat().st_mode) == 0o700


def test_a_folder_that_is_not_whimbrels_own_is_left_as_it_is(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    with Store.open(shared / "moves.sqlite"):
        pass
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755


@pytest.mark.parametrize("given", [None, "", "state"])
def test_without_an_absolute_state_folder_the_home_has_it(
    given: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    if given is not None:
        monkeypatch.setenv("XDG_STATE_HOME", given)
    assert default_path() == tmp_path / ".local" / "state" / "whimbrel" / "moves.sqlite"


def test_who_only_asks_makes_nothing(path: Path) -> None:
    with Store.open(path, create=False) as store:
        assert store.moves() == ()
    assert not path.exists()


def test_a_fresh_store_has_the_newest_schema(path: Path) -> None:
    with Store.open(path):
        pass
    assert version(path) == len(MIGRATIONS)


def test_a_file_without_any_schema_is_migrated(path: Path) -> None:
    path.touch()
    with Store.open(path) as store:
        store.add(BARE)
    assert version(path) == len(MIGRATIONS)


def test_an_older_schema_is_migrated_with_its_moves(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, MIGRATIONS[:1], path)
        with Store.open(path) as newer:
            newer.add(BARE)
    change(
        path,
        "DROP INDEX moves_between",
        "DROP TABLE jobs",
        "DROP TABLE runs",
        "ALTER TABLE moves DROP COLUMN copied",
        "PRAGMA user_version = 1",
    )
    with Store.open(path) as store:
        assert [each.vm for each in store.moves()] == ["bare"]
    assert version(path) == len(MIGRATIONS)


def test_a_migration_that_fails_leaves_the_store_as_it_was(path: Path) -> None:
    with Store.open(path) as store:
        store.add(BARE)
    steps = (*MIGRATIONS, "ALTER TABLE moves ADD COLUMN mood TEXT", "nonsense")
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as connection,
        pytest.raises(sqlite3.OperationalError),
    ):
        migrate(connection, steps, path)
    with Store.open(path) as store:
        assert len(store.moves()) == 1


def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    with Store.open(path):
        pass
    change(path, f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="newer whimbrel"):
        Store.open(path)
    assert path.read_bytes() == before


def test_a_damaged_file_is_told_with_a_remedy(path: Path) -> None:
    path.write_bytes(b"not a database at all, " * 100)
    with pytest.raises(ConfigError) as caught:
        Store.open(path)
    assert "damaged" in caught.value.what
    assert f"mv '{path}'" in caught.value.hint


def test_damage_within_is_told_when_it_is_met(path: Path) -> None:
    with Store.open(path) as store:
        for _ in range(50):
            store.add(MOVE)
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with pytest.raises(ConfigError, match="damaged"), Store.open(path) as store:
        store.moves()


@pytest.mark.parametrize(
    "text", ["'{}'", "'no json'", "'[]'", """'{"schema": "whimbrel.tuning/2"}'""", "NULL"]
)
def test_a_document_that_cannot_be_read_names_its_move(path: Path, text: str) -> None:
    with Store.open(path) as store:
        store.add(BARE)
    if text == "NULL":
        change(path, "UPDATE moves SET method = 'telepathy'")
    else:
        change(path, f"UPDATE moves SET tuning = {text}")  # noqa: S608
    with Store.open(path) as store, pytest.raises(ConfigError, match="Move 1 in the store"):
        store.moves()


def test_a_place_that_cannot_be_made_is_told_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="XDG_STATE_HOME"):
        Store.open(tmp_path / "file" / "moves.sqlite")


def test_a_failed_change_keeps_nothing_and_frees_the_lock(path: Path) -> None:
    with Store.open(path) as store, Store.open(path) as other:
        with pytest.raises(ConfigError):
            store.add(replace(BARE, vm=None))  # type: ignore[arg-type]
        other.add(BARE)
        assert len(store.moves()) == 1


def test_a_store_that_another_holds_for_too_long_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whimbrel.store.PATIENCE", 0.05)
    with Store.open(path) as store, closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ConfigError, match="locked"):
            store.add(BARE)


EACH = 15


def _write(path: Path, vm: str) -> None:
    for _ in range(EACH):
        with Store.open(path) as store:
            store.add(replace(BARE, vm=vm))


def test_two_whimbrels_at_once_lose_nothing(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(path, vm)) for vm in ("one", "two")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
        assert writer.exitcode == 0
    with Store.open(path) as store:
        found = store.moves()
    assert sorted(each.vm for each in found) == ["one"] * EACH + ["two"] * EACH
    assert len({each.number for each in found}) == 2 * EACH
