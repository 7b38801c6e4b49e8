"""A plan of one move as a document and as tables: candidates, verdict, certificate, checks.

plan_document    whimbrel.plan/1, documented in docs/json.md; `saved_plan` reads it again
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from whimbrel.errors import ConfigError
from whimbrel.model.check import Check, Result
from whimbrel.model.journal import ACTIONS
from whimbrel.model.method import Method, Tuning
from whimbrel.model.plain import plain, shaped
from whimbrel.model.plan import Certificate, Forecast, Plan, Rejection, Rung, Wish
from whimbrel.model.prediction import Interval, Prediction, Verdict
from whimbrel.model.storage import StoragePrediction
from whimbrel.model.survey import Surveyed
from whimbrel.model.units import format_size, format_time
from whimbrel.report.words import RANGE
from whimbrel.theory.explain import described

PLAN_SCHEMA = "whimbrel.plan/1"

CANDIDATE_COLUMNS = ("Way", "Time", "Frozen", "On the wire", "Completes", "Why not")
"""Headings of `candidate_rows`."""


@dataclass(frozen=True)
class Planned:
    """Everything that `whimbrel plan` says of one move.

    Attributes:
        vm: The VM's name.
        source: The host it runs on.
        destination: The host it shall run on.
        checks: What the preflight found.
        plan: What theory says; None where nothing was surveyed.
        surveyed: What it says that from; None likewise.
        storage: What copying the disks beforehand will do; None where none is copied.
    """

    vm: str
    source: str
    destination: str
    checks: tuple[Check, ...]
    plan: Plan | None = None
    surveyed: Surveyed | None = None
    storage: StoragePrediction | None = None

    @property
    def verdict(self) -> Verdict:
        """What is advised: nothing that a check forbids is ever begun."""
        if any(each.result is Result.FAIL for each in self.checks):
            return Verdict.REFUSE
        return self.plan.verdict if self.plan else Verdict.BORDERLINE


@dataclass(frozen=True)
class SavedPlan:
    """A plan as a file holds it for a later move.

    Attributes:
        vm: The VM's name.
        source: The host it ran on when the plan was made.
        destination: The host it was to go to.
        verdict: What was advised.
        method: What was chosen.
        tuning: Every setting of it.
        prediction: What it was to do.
        certificate: The ladder; None where none was made.
        wish: What it was made for.
        storage: What was said of the disks that go along; None: nothing.
    """

    vm: str
    source: str
    destination: str
    verdict: Verdict
    method: Method
    tuning: Tuning
    prediction: Prediction
    certificate: Certificate | None
    wish: Wish
    storage: StoragePrediction | None = None


def plan_document(said: Planned) -> dict[str, object]:
    """Return everything that was said of one move, seconds and bytes."""
    plan = said.plan
    chosen = plan.chosen if plan else None
    return {
        "schema": PLAN_SCHEMA,
        "vm": said.vm,
        "source": said.source,
        "destination": said.destination,
        "verdict": said.verdict.value,
        "completion_probability": plan.completion_probability if plan else None,
        "pucker": None if plan is None or plan.pucker is None else plan.pucker.figure,
        "chosen": None if chosen is None else _chosen(chosen),
        "candidates": [] if plan is None else _candidates(plan),
        "checks": [_check(each) for each in said.checks],
        "certificate": [] if plan is None else _rungs(plan.certificate),
        "storage": None if said.storage is None else plain(said.storage),
        "advice": list(plan.advice) if plan else [],
        "survey": None if said.surveyed is None else plain(said.surveyed),
        "saved": None if plan is None or chosen is None else _saved(plan, chosen),
    }


def saved_plan(document: Mapping[str, object]) -> SavedPlan:
    """Read a plan from its document; raises `ConfigError` when it holds none that can be used."""
    if document.get("schema") != PLAN_SCHEMA:
        raise ConfigError(f"This is no plan: its schema is {document.get('schema')!r}.")
    saved = document.get("saved")
    if not isinstance(saved, Mapping):
        raise ConfigError("This plan chose nothing, so it cannot be carried out.")
    try:
        return SavedPlan(
            vm=str(document["vm"]),
            source=str(document["source"]),
            destination=str(document["destination"]),
            verdict=Verdict(str(document["verdict"])),
            method=Method(str(saved["method"])),
            tuning=shaped(Tuning, saved["tuning"]),
            prediction=shaped(Prediction, saved["prediction"]),
            certificate=_certificate(saved["certificate"]),
            wish=shaped(Wish, saved["wish"]),
            storage=_said_of_disks(document.get("storage")),
        )
    except (KeyError, ValueError) as error:
        raise ConfigError(f"This plan cannot be read: {error}", "Make it anew.") from error


def _said_of_disks(data: object) -> StoragePrediction | None:
    return None if data is None else shaped(StoragePrediction, data)


def candidate_rows(plan: Plan, most: int = 12) -> tuple[tuple[str, ...], ...]:
    """Return the best ways and the likeliest of those ruled out, at most so many of them."""
    kept = [(*_cells(each), "") for each in plan.ranking]
    ruled = [_ruled(each) for each in plan.rejected]
    return tuple((kept + ruled)[:most])


def check_rows(checks: Sequence[Check]) -> tuple[tuple[str, str, str, str], ...]:
    """Return name, result, detail and remedy of each check, failures first."""
    order = [Result.FAIL, Result.WARN, Result.PASS]
    chosen = sorted(checks, key=lambda each: order.index(each.result))
    return tuple((each.name, each.result.value, each.detail, each.remedy) for each in chosen)


def _cells(forecast: Forecast) -> tuple[str, str, str, str, str]:
    said = forecast.prediction
    preparation = said.preparation_time.p50
    return (
        described(forecast.candidate),
        _range(_later(said.total_time, preparation), format_time),
        _range(said.downtime, format_time),
        format_size(said.wire_bytes.p50),
        f"{said.completion_probability:.0%}",
    )


def _ruled(no: Rejection) -> tuple[str, ...]:
    if no.forecast is None:
        return (no.method.value, "", "", "", "", no.reason)
    return (*_cells(no.forecast), no.reason)


def _later(interval: Interval, by: float) -> Interval:
    return Interval(interval.p10 + by, interval.p50 + by, interval.p90 + by)


def _range(interval: Interval, show: Callable[[float], str]) -> str:
    return f"{show(interval.p50)} ({show(interval.p10)}{RANGE}{show(interval.p90)})"


def _chosen(forecast: Forecast) -> dict[str, object]:
    said = forecast.prediction
    return {
        "method": forecast.candidate.method.value,
        "tuning": plain(forecast.candidate.tuning),
        "way": described(forecast.candidate),
        **_figures(said),
    }


def _figures(said: Prediction) -> dict[str, object]:
    return {
        "completion_probability": said.completion_probability,
        "preparation_time": plain(said.preparation_time),
        "total_time": plain(said.total_time),
        "downtime": plain(said.downtime),
        "wire_bytes": plain(said.wire_bytes),
        "passes": plain(said.passes),
        "source_cpu_seconds": plain(said.source_cpu_seconds),
        "destination_cpu_seconds": plain(said.destination_cpu_seconds),
    }


def _candidates(plan: Plan) -> list[dict[str, object]]:
    kept: list[dict[str, object]] = [{**_chosen(each), "rejected": None} for each in plan.ranking]
    for no in plan.rejected:
        known = _chosen(no.forecast) if no.forecast else {"method": no.method.value}
        kept.append({**known, "rejected": no.reason})
    return kept


def _check(check: Check) -> dict[str, object]:
    return {
        "name": check.name,
        "result": check.result.value,
        "detail": check.detail,
        "remedy": check.remedy,
    }


def _rungs(certificate: Certificate | None) -> list[dict[str, object]]:
    if certificate is None:
        return []
    return [
        {
            "step": rung.step.value,
            "latest": _finite(rung.latest),
            "probability": rung.probability,
            "total_time": _finite(rung.total_time),
            "downtime": _finite(rung.downtime),
            "guaranteed": rung.guaranteed,
            "reason": rung.reason,
        }
        for rung in certificate.rungs
    ]


def _saved(plan: Plan, chosen: Forecast) -> dict[str, object]:
    return {
        "method": chosen.candidate.method.value,
        "tuning": plain(chosen.candidate.tuning),
        "prediction": plain(chosen.prediction),
        "certificate": None if plan.certificate is None else _whole(plan.certificate),
        "wish": plain(plan.wish),
    }


def _whole(certificate: Certificate) -> dict[str, object]:
    """Return a certificate as plain data, each rung's action with its kind."""
    return {
        "assumptions": list(certificate.assumptions),
        "rungs": [
            {
                "rung": plain(replace(rung, action=None)),
                "action": None if rung.action is None else plain(rung.action),
                "kind": next((w for w, k in ACTIONS.items() if type(rung.action) is k), None),
            }
            for rung in certificate.rungs
        ],
    }


def _certificate(data: Any) -> Certificate | None:
    """Return what `_whole` made plain; `ValueError` or `KeyError` when it is not that."""
    if data is None:
        return None
    rungs = []
    for each in data["rungs"]:
        rung = shaped(Rung, each["rung"])
        if each["kind"] is not None:
            rung = replace(rung, action=shaped(ACTIONS[each["kind"]], each["action"]))
        rungs.append(rung)
    return Certificate(tuple(rungs), tuple(str(each) for each in data["assumptions"]))


def _finite(value: float) -> float | None:
    return value if abs(value) != float("inf") else None
