"""Which tunings two hosts can carry out, and why not the others.

    candidates   a method, one tuning                     what a person names
    variants     methods x channels x codecs x forms      what a plan weighs
                     form: destination memory prepared or as it comes,
                           free page hints or not, set up for post-copy or not,
                           over one NIC or over all of them
    aids         a way that is not sure to complete, with what helps it to

What is not offered leaves a reason.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import product

from whimbrel.model.inventory import Capability
from whimbrel.model.method import (
    Compression,
    Method,
    Postcopy,
    Settings,
    Transport,
    Tuning,
    tuning_for,
)
from whimbrel.model.plan import Candidate, Forecast, Rejection, Wish
from whimbrel.model.prediction import Verdict
from whimbrel.theory.bounds import bounds
from whimbrel.theory.certificate import WORTH_RAISING, highest_limit, postcopy_hindrance
from whimbrel.theory.situation import Situation

NAMED = tuple(method for method in Method if method is not Method.AUTO)
"""The methods that say what they do."""

_UNWEIGHED = {Method.QEMU_DEFAULT, Method.AUTO_CONVERGE, Method.ENCRYPTED}

WEIGHED = tuple(method for method in NAMED if method not in _UNWEIGHED)
"""Where a plan begins: without QEMU's own cap, which only makes TCP slower, without throttling,
which is an aid (`aids`), and encrypted where that is wanted, not where it is quicker."""

CHANNELS = (2, 4)
"""Numbers of channels that are weighed beside the one that was set and those surveyed."""

MANY_CHANNELS = (8, 16)
"""And these where the survey found as many idle cores for them, within the budget."""

CORES_FOR_LEVELS = 4
"""Idle cores from which on levels above a codec's lowest are weighed beside the one that was set:
with fewer, compressing is what a move waits for, and a higher level makes it wait longer."""

AIDED = (Method.TCP, Method.MULTICHANNEL, Method.MULTINIC, Method.COMPRESSED)
"""Methods that are helped where they are not sure to complete."""

SPREAD = (Method.MULTICHANNEL, Method.COMPRESSED, Method.POSTCOPY, Method.POSTCOPY_PREEMPT)
"""Methods that are weighed over all NICs as well; a plain stream there is `multinic`."""

Found = tuple[tuple[Candidate, ...], tuple[Rejection, ...]]


def candidates(
    settings: Settings,
    source: frozenset[Capability],
    destination: frozenset[Capability],
    methods: Iterable[Method] = NAMED,
) -> Found:
    """Return what can be tried, and what cannot.

    What merely helps (prepared memory, free page hints) is left out where a host lacks it;
    what a method consists of rules it out.
    """
    possible: list[Candidate] = []
    rejected: list[Rejection] = []
    for method in methods:
        tuning = _within(tuning_for(method, settings), source & destination)
        lacks = _lacks("source", _needed(tuning, source)) + _lacks(
            "destination", _needed(tuning, destination)
        )
        if tuning.encrypted and tuning.transport is Transport.RDMA:
            lacks.insert(0, "QEMU cannot encrypt RDMA")
        if tuning.encrypted and tuning.zero_copy:
            lacks.insert(0, "QEMU cannot encrypt what it sends without copying")
        if lacks:
            rejected.append(Rejection(method, "; ".join(lacks)))
        else:
            possible.append(Candidate(method, tuning))
    return tuple(possible), tuple(rejected)


def _needed(tuning: Tuning, able: frozenset[Capability]) -> frozenset[Capability]:
    """Return what a host lacks for a tuning; certificates encrypt as well as a key does."""
    lacking = tuning.needs - able
    return lacking - {Capability.TLS_PSK} if Capability.TLS_X509 in able else lacking


def variants(situation: Situation, settings: Settings, wish: Wish) -> Found:
    """Return every way that is worth predicting, each tuning once, and what is ruled out.

    Compression is tried with the codecs and levels that the survey measured, never with a
    guess. Of plain streams the form that can go over to post-copy stands for the one that
    cannot, wherever that costs nothing.
    """
    allowed = within_wish(situation, settings, wish)
    found: dict[Tuning, Candidate] = {}
    rejected = {(each.method, each.reason): each for each in situation.barred}
    barred = {each.method for each in situation.barred}
    weighed = [method for method in WEIGHED if method not in barred]
    counts, codecs = _channels(situation, settings, wish), _codecs(situation, settings, wish)
    for count, codec in product(counts, codecs):
        chosen = replace(allowed, channels=count, compression=codec)
        possible, refused = candidates(chosen, situation.source, situation.destination, weighed)
        for each in possible:
            for form in _spread(_forms(each, situation, wish), situation):
                found.setdefault(form.tuning, form)
        rejected |= {(each.method, each.reason): each for each in refused}
    known = tuple(each for each in found.values() if _measured(situation, each))
    alone = _alone(situation, rejected.values())
    return known, (*rejected.values(), *_unmeasured(situation, found.values()), *alone)


def aids(
    situation: Situation, wish: Wish, forecasts: Sequence[Forecast]
) -> tuple[tuple[Candidate, ...], tuple[Rejection, ...]]:
    """Return what helps ways to complete that are not sure to, and why nothing else does.

    A longer downtime limit within the wish, throttling, and both, for the likeliest form of
    each of `AIDED`. Throttling is not offered where a move completes without it: the guest
    would pay for nothing.
    """
    found: dict[Tuning, Candidate] = {}
    sure: list[str] = []
    for best in _likeliest(forecasts):
        method, prediction = best.candidate.method, best.prediction
        if prediction.verdict is Verdict.GO:
            done = prediction.completion_probability
            sure.append(f"{method} completes without it with probability {done:.2f}")
            continue
        for tuning in _helped(situation, wish, best.candidate.tuning):
            found.setdefault(tuning, Candidate(_name(method, tuning), tuning))
    if any(each.tuning.throttling for each in found.values()):
        return tuple(found.values()), ()
    lacks = [
        *_lacks("source", {Capability.THROTTLING} - situation.source),
        *_lacks("destination", {Capability.THROTTLING} - situation.destination),
    ]
    reason = "; ".join(lacks) or next(iter(sure), "there is nothing that it could help")
    return tuple(found.values()), (Rejection(Method.AUTO_CONVERGE, reason),)


def _likeliest(forecasts: Sequence[Forecast]) -> Iterator[Forecast]:
    """Yield of each method that can be helped the form that most probably completes."""
    for method in AIDED:
        own = [each for each in forecasts if each.candidate.method is method]
        if own:
            yield max(own, key=lambda each: each.prediction.completion_probability)


def _name(method: Method, tuning: Tuning) -> Method:
    plain = method is Method.TCP and tuning.throttling
    return Method.AUTO_CONVERGE if plain else method


def _helped(situation: Situation, wish: Wish, tuning: Tuning) -> Iterator[Tuning]:
    most = bounds(situation.survey, tuning, situation.rules, floor=situation.floor)
    limit = highest_limit(situation.survey, tuning, wish, most)
    raised = replace(tuning, downtime_limit=limit)
    longer = limit > tuning.downtime_limit * WORTH_RAISING
    if longer:
        yield raised
    if Capability.THROTTLING in situation.common:
        yield _throttled(tuning)
        if longer:
            yield _throttled(raised)


def _throttled(tuning: Tuning) -> Tuning:
    return replace(tuning, throttling=True)


def within_wish(situation: Situation, settings: Settings, wish: Wish) -> Settings:
    """Return the settings within the wish, and without what the guest cannot do."""
    limits = [each for each in (settings.bandwidth_limit, wish.bandwidth_limit) if each]
    prepared, budget = settings.prepared_memory, wish.cpu_budget
    if prepared is not None and budget is not None:
        threads = min(prepared.threads, int(budget))
        prepared = replace(prepared, threads=threads) if threads else None
    return replace(
        settings,
        bandwidth_limit=min(limits, default=None),
        downtime_limit=_downtime_limit(situation, settings, wish),
        prepared_memory=prepared,
        free_page_hints=settings.free_page_hints and situation.hints,
    )


def _downtime_limit(situation: Situation, settings: Settings, wish: Wish) -> float:
    """Return the limit that was set, or the highest that keeps the wished downtime."""
    plain = Tuning(downtime_limit=settings.downtime_limit)
    most = bounds(situation.survey, plain, situation.rules, floor=situation.floor)
    highest = highest_limit(situation.survey, plain, wish, most)
    return min(settings.downtime_limit, highest if highest > SHORTEST else wish.downtime)


SHORTEST = 0.001
"""Seconds of the shortest downtime limit that QEMU can be told (downtime-limit, in ms)."""


def _channels(situation: Situation, settings: Settings, wish: Wish) -> tuple[int, ...]:
    surveyed = (count for count in situation.survey.link.goodput if count > 1)
    many = (count for count in MANY_CHANNELS if count <= _cores(situation, wish))
    return tuple(dict.fromkeys((settings.channels, *CHANNELS, *many, *surveyed)))


def _cores(situation: Situation, wish: Wish) -> float:
    """Return the cores that the move may keep busy on either host, of those that are idle."""
    budget = wish.cpu_budget
    return situation.cores if budget is None else min(situation.cores, budget)


def _spread(forms: Iterable[Candidate], situation: Situation) -> Iterator[Candidate]:
    """Yield each form, and where there are several NICs, over all of them too."""
    several = situation.survey.link.multipath is not None
    for form in forms:
        if not form.tuning.multipath or several:
            yield form
        if several and form.method in SPREAD and Capability.MPTCP in situation.common:
            yield replace(form, tuning=replace(form.tuning, multipath=True))


def _alone(situation: Situation, rejected: Iterable[Rejection]) -> list[Rejection]:
    """Return why several NICs are not weighed, where nothing else is in their way."""
    told = any(each.method is Method.MULTINIC for each in rejected)
    if told or situation.survey.link.multipath is not None:
        return []
    return [Rejection(Method.MULTINIC, "the hosts are known to share one NIC only")]


def _codecs(situation: Situation, settings: Settings, wish: Wish) -> tuple[Compression, ...]:
    """Return what was measured, what was set first; what was set alone where nothing was."""
    survey, idle = situation.survey, _cores(situation, wish) >= CORES_FOR_LEVELS
    known = [
        each
        for each in survey.memory.ratios
        if each in survey.source.compress_speed
        and (idle or each.level == 1 or each == settings.compression)
    ]
    first = sorted(known, key=lambda each: each != settings.compression)
    return tuple(first) or (settings.compression,)


def _measured(situation: Situation, candidate: Candidate) -> bool:
    codec, survey = candidate.tuning.compression, situation.survey
    known = codec in survey.memory.ratios and codec in survey.source.compress_speed
    return codec is None or known


def _unmeasured(situation: Situation, possible: Iterable[Candidate]) -> list[Rejection]:
    """Return why compression is not weighed at all, where it could be."""
    unknown = {e.tuning.compression for e in possible if not _measured(situation, e)}
    return [
        Rejection(Method.COMPRESSED, f"the survey did not measure {each.codec}:{each.level}")
        for each in unknown
        if each is not None
    ]


def _forms(candidate: Candidate, situation: Situation, wish: Wish) -> Iterator[Candidate]:
    """Yield the forms of a candidate: prepared or not, with hints or not, ready for post-copy."""
    tuning = candidate.tuning
    if tuning.postcopy is not Postcopy.NEVER:
        yield candidate
        return
    bare = replace(tuning, prepared_memory=None)
    plain = replace(bare, free_page_hints=False)
    hindered = postcopy_hindrance(plain, wish, situation.common, situation.rules)
    ready = plain if hindered else replace(plain, postcopy=Postcopy.IF_STALLED)
    for form in dict.fromkeys(ready if each == plain else each for each in (tuning, bare, plain)):
        yield replace(candidate, tuning=form)


def _within(tuning: Tuning, common: frozenset[Capability]) -> Tuning:
    if Capability.PREPARED_MEMORY not in common:
        tuning = replace(tuning, prepared_memory=None)
    if Capability.FREE_PAGE_HINTS not in common:
        tuning = replace(tuning, free_page_hints=False)
    return tuning


def _lacks(side: str, missing: frozenset[Capability] | set[Capability]) -> list[str]:
    return [f"the {side} lacks {', '.join(sorted(missing))}"] if missing else []
