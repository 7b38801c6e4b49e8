"""The lab's facts as JSON documents; every key is described in docs/json.md.

    lab_document      whimbrel.lab/1      what was asked for, and every figure measured
    series_document   whimbrel.series/1   the same runs' counters over time

Seconds and bytes throughout, null where a figure is not known. The conversion walks the
dataclasses' own fields, so that a field added to the model cannot be forgotten here.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import StrEnum
from pathlib import PurePath

from whimbrel.model.migration import (
    Action,
    Cancel,
    Decision,
    Proceed,
    SetBandwidthLimit,
    SetDowntimeLimit,
    StartPostcopy,
)
from whimbrel.model.scenario import LabResult, Measure, Run, Scenario, ScenarioResult, Track

LAB_SCHEMA = "whimbrel.lab/1"
SERIES_SCHEMA = "whimbrel.series/1"

UNITS: dict[Measure, str] = {
    Measure.CPU_CORE: "share",
    Measure.CPU_NUMA: "share",
    Measure.CPU_HOST: "cores",
    Measure.SENT: "bytes/s",
    Measure.RECEIVED: "bytes/s",
    Measure.RESIDENT: "bytes",
    Measure.DIRTY_RATE: "bytes/s",
    Measure.REMAINING: "bytes",
    Measure.BANDWIDTH: "bytes/s",
    Measure.HEARTBEAT_GAP: "seconds",
}
"""What one unit of each measure is."""

_ACTIONS: dict[type[Action], str] = {
    StartPostcopy: "start-postcopy",
    Cancel: "cancel",
    SetDowntimeLimit: "set-downtime-limit",
    SetBandwidthLimit: "set-bandwidth-limit",
    Proceed: "proceed",
}


def lab_document(result: LabResult) -> dict[str, object]:
    """Return everything but the tracks, valid under docs/lab.schema.json."""
    return {
        "schema": LAB_SCHEMA,
        "machine": _plain(result.machine),
        "scenarios": [
            {
                "scenario": scenario_document(part.scenario),
                "runs": [_run(run) for run in part.runs],
            }
            for part in result.scenarios
        ],
    }


def series_document(result: LabResult) -> dict[str, object]:
    """Return the tracks of every run, in the order of `lab_document`."""
    return {
        "schema": SERIES_SCHEMA,
        "scenarios": [_series(part) for part in result.scenarios],
    }


def scenario_document(scenario: Scenario) -> dict[str, object]:
    """Return a scenario under the keys of its TOML file, in bytes and seconds."""
    settings = scenario.settings
    prepared = settings.prepared_memory
    return {
        "name": scenario.name,
        "repeats": scenario.repeats,
        "methods": [method.value for method in scenario.methods],
        "timeout": _plain(scenario.timeout),
        "downtime_limit": _plain(settings.downtime_limit),
        "bandwidth_limit": _plain(settings.bandwidth_limit),
        "channels": settings.channels,
        "compression": _plain(settings.compression),
        "xbzrle_cache": settings.xbzrle_cache,
        "prepare_memory": prepared is not None,
        "prepare_threads": prepared.threads if prepared else None,
        "free_page_hints": settings.free_page_hints,
        "encrypted": settings.encrypted,
        "accelerator": scenario.accelerator.value,
        "kernel": _plain(scenario.kernel),
        "survey": _plain(scenario.survey),
        "modules": _plain(scenario.modules),
        "nested": scenario.nested,
        "auto": _plain(scenario.auto),
        "link": _plain(scenario.link),
        "guest": _plain(scenario.guest),
    }


def json_text(document: Mapping[str, object]) -> str:
    """Return a document as JSON text with a final newline."""
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _run(run: Run) -> dict[str, object]:
    return {
        "method": run.method.value,
        "preset": run.preset,
        "tuning": _plain(run.tuning),
        "repeat": run.repeat,
        "source": run.source,
        "ending": run.ending.value,
        "reason": run.reason,
        "survey_time": _plain(run.survey_time),
        "predicted": _predicted(run),
        "chosen": _plain(run.chosen),
        "observed": _plain(run.observed),
        "guest": _plain(run.guest),
        "passes": _plain(run.passes),
        "phases": _plain(run.phases),
        "decisions": [_decision(decision) for decision in run.decisions],
    }


def _predicted(run: Run) -> dict[str, object] | None:
    """Return what was said beforehand; times are QEMU's total and what is seen from outside."""
    said = run.predicted
    if said is None:
        return None
    return {
        "verdict": said.verdict.value,
        "completion_probability": _plain(said.completion_probability),
        "pucker": _plain(run.pucker),
        "preparation_time": _plain(said.preparation_time),
        "total_time": _plain(said.total_time),
        "downtime": _plain(said.downtime),
        "wire_bytes": _plain(said.wire_bytes),
        "passes": _plain(said.passes),
        "throttle": _plain(said.throttle),
        "source_cpu_seconds": _plain(said.source_cpu_seconds),
        "destination_cpu_seconds": _plain(said.destination_cpu_seconds),
        "band": _plain(said.band),
    }


def _decision(decision: Decision) -> dict[str, object]:
    details = {f.name: _plain(getattr(decision.action, f.name)) for f in fields(decision.action)}
    action = {"kind": _ACTIONS[type(decision.action)]} | details
    return {"at": _plain(decision.at), "reason": decision.reason, "action": action}


def _series(part: ScenarioResult) -> dict[str, object]:
    return {
        "name": part.scenario.name,
        "runs": [
            {
                "method": run.method.value,
                "repeat": run.repeat,
                "tracks": [_track(track) for track in run.tracks],
            }
            for run in part.runs
        ],
    }


def _track(track: Track) -> dict[str, object]:
    return {
        "measure": track.measure.value,
        "label": track.label,
        "unit": UNITS[track.measure],
        "times": _plain(track.times),
        "values": _plain(track.values),
    }


def _plain(value: object) -> object:
    """Turn a model value into what JSON can say; a number that is none becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, int | str):
        return value.value if isinstance(value, StrEnum) else value
    if isinstance(value, PurePath):
        return str(value)
    return _plain_parts(value)


def _plain_parts(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    raise TypeError(f"no JSON form for {type(value).__name__}")
