"""What a suite says of theory, as tables for a page, a terminal or a text, and as JSON."""

from collections.abc import Callable, Sequence

from whimbrel.model.plain import plain
from whimbrel.model.units import format_time
from whimbrel.report.tables import Table, tables_html, tables_markdown
from whimbrel.report.words import NOTHING
from whimbrel.theory.accuracy import Accuracy, Figure
from whimbrel.theory.assessment import PROMISED, Assessment, Noise, Regret, Rival
from whimbrel.theory.score import Errors, Verdicts

_TITLE = "Theory next to practice"


def tables(found: Assessment) -> tuple[Table, ...]:
    """Return everything that a suite says, the most important first."""
    return (_forecast(found), _simple(found), _choice(found))


def summary(found: Assessment) -> tuple[str, ...]:
    """Return the suite's result in a few sentences."""
    ours = found.promised
    told = [f"{found.runs} moves, {ours.moves} of them by {_names()}."]
    if ours.total_time and ours.wire_bytes and ours.downtime:
        told.append(
            f"Time off by {_shares(ours.total_time.errors)}, bytes by "
            f"{_shares(ours.wire_bytes.errors)}, downtime by {_times(ours.downtime.errors)} "
            "(median / p90)."
        )
    met = ours.verdicts
    if met.right + met.wrong:
        told.append(
            f"Verdicts right in {met.right} of {met.right + met.wrong}; "
            f"{found.borderline_share:.0%} were borderline."
        )
    if found.regret is not None:
        worst = max(each.ratio for each in found.regrets)
        told.append(
            f"auto took {found.regret:.2f} times as long as the best static method of "
            f"{len(found.regrets)} scenarios (geometric mean), {worst:.2f} times at worst."
        )
    if found.speedup is not None:
        told.append(f"It was at least {found.speedup:.1f} times as fast as qemu-default.")
    return tuple(told)


def accuracy_markdown(found: Assessment) -> str:
    """Return everything as Markdown."""
    return tables_markdown(_TITLE, summary(found), tables(found))


def accuracy_html(found: Assessment, pictures: Sequence[str] = ()) -> str:
    """Return everything as one section of a page; `pictures` are figures made elsewhere."""
    return tables_html(_TITLE, summary(found), tables(found), pictures)


def assessment_document(found: Assessment) -> dict[str, object]:
    """Return everything as JSON (docs/json.md); null where nothing tells."""
    return {
        "runs": found.runs,
        "promised": [method.value for method in PROMISED],
        "all": accuracy_figures(found.promised),
        "borderline_share": found.borderline_share,
        "methods": {method.value: accuracy_figures(each) for method, each in found.methods.items()},
        "rivals": [_rival(each) for each in found.rivals],
        "noise": None if found.noise is None else _finite(plain(found.noise)),
        "regret": found.regret,
        "speedup": found.speedup,
        "choices": [_finite(plain(each)) for each in found.regrets],
    }


def accuracy_figures(found: Accuracy) -> dict[str, object]:
    """Return an accuracy as JSON has it (docs/json.md, docs/history.md)."""
    met = found.verdicts
    return {
        "moves": found.moves,
        "total_time": plain(found.total_time),
        "wire_bytes": plain(found.wire_bytes),
        "downtime": plain(found.downtime),
        "verdicts": {
            "right": met.right,
            "wrong": met.wrong,
            "borderline": met.borderline,
            "accuracy": met.accuracy,
        },
    }


def _names() -> str:
    return ", ".join(method.value for method in PROMISED)


def _forecast(found: Assessment) -> Table:
    rows = [_row(method.value, each) for method, each in found.methods.items()]
    ours = _row("the promised", found.promised)
    noise = [] if found.noise is None else [_noise(found.noise)]
    return Table(
        "How far forecasts were off",
        "Errors as median / 90th percentile, of moves that completed. Within: share of moves "
        "between the 10th and the 90th percentile that was said, for time, bytes and downtime; "
        f"80 % is honest. The promised are {_names()}. The noise floor is how far repeats of the "
        "same move lie from their own median.",
        ("Method", "Moves", "Time", "Bytes", "Downtime", "Within", "Verdicts", "Borderline"),
        (ours, *rows, *noise),
    )


def accuracy_cells(name: str, found: Accuracy) -> tuple[str, ...]:
    """Return name, moves, errors of time, bytes and downtime, share within, verdicts, as texts."""
    figures = (found.total_time, found.wire_bytes, found.downtime)
    return (
        name,
        str(found.moves),
        _figure(found.total_time, _shares),
        _figure(found.wire_bytes, _shares),
        _figure(found.downtime, _times),
        " / ".join(f"{each.coverage:.0%}" if each else NOTHING for each in figures),
        _right(found.verdicts),
    )


def _row(name: str, found: Accuracy) -> tuple[str, ...]:
    return (*accuracy_cells(name, found), str(found.verdicts.borderline))


def _noise(noise: Noise) -> tuple[str, ...]:
    figures = (_shares(noise.total_time), _shares(noise.wire_bytes), _times(noise.downtime))
    return (
        "noise floor",
        str(noise.total_time.count),
        *figures,
        NOTHING,
        NOTHING,
        NOTHING,
    )


def _simple(found: Assessment) -> Table:
    ours = found.promised
    mine = (
        "whimbrel",
        _figure(ours.total_time, _shares),
        _figure(ours.wire_bytes, _shares),
        _figure(ours.downtime, _times),
        _right(ours.verdicts),
    )
    others = tuple(
        (
            each.name,
            _shares(each.total_time),
            _shares(each.wire_bytes),
            _times(each.downtime),
            _right(each.verdicts) if each.verdicts else NOTHING,
        )
        for each in found.rivals
    )
    return Table(
        "Next to simpler models",
        "The same moves, and the same surveys: V/B is bytes over bandwidth, geometric is the "
        "textbook model with one mean dirty rate, interpolation follows the measured dirty "
        "curve (Gudkov, QEMU list 2023). A model that expects a move never to end is off by "
        "more than any number where it does end.",
        ("Model", "Time", "Bytes", "Downtime", "Verdicts"),
        (mine, *others),
    )


def _choice(found: Assessment) -> Table:
    return Table(
        "What auto chose",
        "Wall time of auto beside the fastest method of the same scenario and beside "
        "qemu-default; > where that had not completed in the time it was given.",
        ("Scenario", "Chosen", "auto", "Best", "Its time", "Ratio", "qemu-default"),
        tuple(_chosen(each) for each in found.regrets),
    )


def _chosen(one: Regret) -> tuple[str, ...]:
    default = NOTHING
    if one.default_seconds is not None:
        sign = "" if one.default_completed else "> "
        default = f"{sign}{format_time(one.default_seconds)}"
    return (
        one.scenario,
        one.chosen,
        _seconds(one.seconds),
        one.best.value,
        _seconds(one.best_seconds),
        f"{one.ratio:.2f}",
        default,
    )


def _seconds(seconds: float) -> str:
    return format_time(seconds) if seconds < float("inf") else "not completed"


def _figure(figure: Figure | None, show: Callable[[Errors | None], str]) -> str:
    return show(figure.errors if figure else None)


def _shares(errors: Errors | None) -> str:
    if errors is None:
        return NOTHING
    return f"{_share(errors.median)} / {_share(errors.p90)}"


def _share(value: float) -> str:
    return f"{value:.1%}" if value < float("inf") else "never ends"


def _times(errors: Errors | None) -> str:
    if errors is None:
        return NOTHING
    return f"{_seconds_or_never(errors.median)} / {_seconds_or_never(errors.p90)}"


def _seconds_or_never(value: float) -> str:
    return format_time(value) if value < float("inf") else "never ends"


def _right(met: Verdicts) -> str:
    promised = met.right + met.wrong
    return f"{met.right} of {promised}" if promised else NOTHING


def _rival(each: Rival) -> dict[str, object]:
    return {
        "name": each.name,
        "total_time": _finite(plain(each.total_time)),
        "wire_bytes": _finite(plain(each.wire_bytes)),
        "downtime": _finite(plain(each.downtime)),
        "verdicts": None
        if each.verdicts is None
        else {"right": each.verdicts.right, "wrong": each.verdicts.wrong},
    }


def _finite(value: object) -> object:
    """Turn the words for numbers that JSON cannot say into null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if value in ("inf", "-inf", "nan") else value
