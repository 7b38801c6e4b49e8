import dataclasses
from pathlib import Path

import pytest

from unit.report.samples import result as sample_result
from whimbrel.errors import ConfigError, ExitCode
from whimbrel.lab.results import exit_code, prepare_folder, write_json, write_results
from whimbrel.model.outcome import Ending
from whimbrel.model.scenario import GuestCheck, LabResult, Run, ScenarioResult


def with_runs(*runs: Run) -> LabResult:
    result = sample_result()
    return dataclasses.replace(
        result, scenarios=(ScenarioResult(result.scenarios[0].scenario, runs),)
    )


def completed() -> Run:
    return next(run for run in sample_result().scenarios[0].runs if run.ending is Ending.COMPLETED)


def changed(**fields: object) -> Run:
    return dataclasses.replace(completed(), **fields)  # type: ignore[arg-type]


def test_every_promised_file_is_written(tmp_path: Path) -> None:
    write_results(prepare_folder(tmp_path / "new" / "folder"), with_runs(completed()))
    names = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert {"lab.json", "series.json", "table.md", "table.csv", "report.html"} <= names
    assert any(name.endswith(".png") for name in names)


def test_a_file_in_the_folders_place_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(ConfigError, match="taken"):
        prepare_folder(tmp_path / "taken")


def test_a_json_file_in_no_folder_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        write_json(tmp_path / "nowhere" / "lab.json", with_runs(completed()))


def test_a_result_in_which_most_methods_have_not_run_yet_can_be_written(tmp_path: Path) -> None:
    write_results(tmp_path, with_runs(completed()))
    asked = with_runs().scenarios[0].scenario.methods
    rows = (tmp_path / "table.csv").read_text().splitlines()
    assert len(rows) == 1 + len(asked)


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (completed(), ExitCode.DONE),
        (changed(ending=Ending.NOT_AVAILABLE, guest=None), ExitCode.DONE),
        (changed(ending=Ending.TIMEOUT), ExitCode.SAFE_AT_SOURCE),
        (changed(ending=Ending.FAILED), ExitCode.SAFE_AT_SOURCE),
        (changed(ending=Ending.FAILED, guest=None), ExitCode.PLACE_UNKNOWN),
        (changed(ending=Ending.FAILED, guest=GuestCheck(False, 9)), ExitCode.LAB),
    ],
)
def test_the_exit_code_tells_the_gravest_ending(run: Run, code: ExitCode) -> None:
    assert exit_code(with_runs(completed(), run, completed())) is code
