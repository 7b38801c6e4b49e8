"""What a peers suite says, as tables for a page, a terminal or a text, and as JSON."""

from collections.abc import Iterable, Sequence

from whimbrel.model.plain import plain
from whimbrel.model.units import format_time
from whimbrel.report.tables import Table, tables_html, tables_markdown
from whimbrel.report.words import NOTHING
from whimbrel.theory.peers import HALF, SLOWER, Against, Comparison, Standing, Trial

_TITLE = "Whimbrel beside others"

_BOUND = "\N{GREATER-THAN OR EQUAL TO}\N{NO-BREAK SPACE}"


def peer_tables(found: Comparison) -> tuple[Table, ...]:
    """Return everything, the most important first."""
    return (_standings(found), _guests(found), _who(found))


def peer_summary(found: Comparison) -> tuple[str, ...]:
    """Return the result in a few sentences, whatever it is."""
    if found.best is None or found.share is None:
        return ("Nothing to compare: no product's default and whimbrel had the same guest.",)
    share = (
        f"whimbrel auto took {_times(found.share)} the time of {found.best.name} "
        f"({found.best.product}), whose defaults were the fastest of all products, as the "
        f"geometric mean over {_counted(found)}. {_looked(found)}"
    )
    told = [
        share,
        _slower(found.slower),
        *_rescued(found),
        *_lost(found),
        _aim(found),
    ]
    return tuple(told)


def peers_markdown(found: Comparison) -> str:
    """Return everything as Markdown."""
    return tables_markdown(_TITLE, peer_summary(found), peer_tables(found))


def peers_html(found: Comparison, pictures: Sequence[str] = ()) -> str:
    """Return everything as one section of a page; `pictures` are figures made elsewhere."""
    return tables_html(_TITLE, peer_summary(found), peer_tables(found), pictures)


def peers_document(found: Comparison) -> dict[str, object]:
    """Return everything as JSON (docs/json.md); null where nothing tells."""
    return {
        "ours": found.ours,
        "best": None if found.best is None else found.best.name,
        "guests": list(found.guests),
        "share": found.share,
        "share_with_survey": found.looked,
        "survey_time": found.survey,
        "slower": plain(found.slower),
        "rescued": _named(found.rescued),
        "lost": _named(found.lost),
        "met": found.met,
        "standings": [_document(each) for each in found.standings],
    }


def _document(standing: Standing) -> dict[str, object]:
    return {
        **{str(key): value for key, value in vars(standing.peer).items()},
        "missing": standing.missing,
        "completed": standing.completed,
        "time": standing.time,
        "bound": standing.bound,
        "downtime": standing.downtime,
        "sent": standing.sent,
        "longest_downtime": standing.longest_downtime,
        "trials": [plain(trial) for trial in standing.trials],
    }


def _named(pairs: Iterable[Against]) -> list[dict[str, str]]:
    return [{"peer": each.peer, "guest": each.guest} for each in pairs]


def _counted(found: Comparison) -> str:
    return "1 guest" if len(found.guests) == 1 else f"{len(found.guests)} guests"


def _times(ratio: float) -> str:
    return f"{ratio:.2f} times"


def _looked(found: Comparison) -> str:
    if found.survey is None or found.looked is None:
        return "A move that did not complete counts with all the time it was given."
    return (
        f"It looked at guest and link for {format_time(found.survey)} (median) before each move; "
        f"with that counted it was {_times(found.looked)}. A move that did not complete counts "
        "with all the time it was given."
    )


def _slower(slower: Against | None) -> str:
    if slower is None:
        return "No guest was brought over both by whimbrel and by another."
    if slower.ratio <= 1:
        return (
            f"It was never slower than any: at worst {_times(slower.ratio)} the time of "
            f"{slower.peer} ({slower.guest})."
        )
    return (
        f"It was never slower than any by more than {slower.ratio - 1:.0%}: that by {slower.peer} "
        f"({slower.guest})."
    )


def _rescued(found: Comparison) -> list[str]:
    if not found.rescued:
        return []
    said = "; ".join(f"{guest}: {', '.join(who)}" for guest, who in _by_guest(found.rescued))
    return [f"It completed where defaults did not in the time given: {said}."]


def _lost(found: Comparison) -> list[str]:
    if not found.lost:
        return []
    said = "; ".join(f"{guest}: {', '.join(who)}" for guest, who in _by_guest(found.lost))
    return [f"It did NOT complete where others did: {said}."]


def _by_guest(pairs: Iterable[Against]) -> list[tuple[str, list[str]]]:
    guests: dict[str, list[str]] = {}
    for each in pairs:
        guests.setdefault(each.guest, []).append(each.peer)
    return list(guests.items())


def _aim(found: Comparison) -> str:
    aim = (
        f"at most {HALF:g} times the best product's default time, never slower than any by more "
        f"than {SLOWER - 1:.0%}, and completing wherever another does"
    )
    if found.met is None:
        return f"Whether the aim is met ({aim}) cannot be told."
    return f"The aim is {'met' if found.met else 'NOT met'}: {aim}."


def _standings(found: Comparison) -> Table:
    reference = found.best.name if found.best else "nobody"
    return Table(
        "Everyone beside the best product's default",
        f"Ratios to {reference}, geometric means over the guests; {_BOUND}where a move that did "
        "not complete is counted with the time it was given. Downtime (by the guest's beat) and "
        "bytes of guests that both brought over. An asterisk marks what a product does by default.",
        ("Who", "Completed", "Time", "Downtime", "Bytes", "Longest downtime"),
        tuple(_row(each) for each in found.standings),
    )


def _row(standing: Standing) -> tuple[str, ...]:
    name = _name(standing)
    if standing.missing:
        return (name, f"not available: {standing.missing}", *(NOTHING,) * 4)
    longest = standing.longest_downtime
    return (
        name,
        f"{standing.completed} of {len(standing.trials)}",
        f"{_BOUND if standing.bound else ''}{_ratio(standing.time)}",
        _ratio(standing.downtime),
        _ratio(standing.sent),
        NOTHING if longest is None else format_time(longest),
    )


def _name(standing: Standing) -> str:
    return f"{standing.peer.name}{' *' if standing.peer.default else ''}"


def _ratio(ratio: float | None) -> str:
    return NOTHING if ratio is None else f"{ratio:.2f}"


def _guests(found: Comparison) -> Table:
    tried = [each for each in found.standings if each.trials]
    return Table(
        "Guest by guest",
        "Seconds from the request until the guest runs at the destination and needs the source no "
        "more; > where it had not by then.",
        ("Who", *found.guests),
        tuple((_name(each), *(_time(trial) for trial in each.trials)) for each in tried),
    )


def _time(trial: Trial) -> str:
    return f"{'' if trial.completed else '> '}{format_time(trial.seconds)}"


def _who(found: Comparison) -> Table:
    return Table(
        "Who does what",
        "What each preset sets and does, and where that was read; what is left out stands in "
        "docs/peers.md.",
        ("Who", "Product", "Does", "Source"),
        tuple(
            (_name(each), each.peer.product, each.peer.description, each.peer.source)
            for each in found.standings
        ),
    )
