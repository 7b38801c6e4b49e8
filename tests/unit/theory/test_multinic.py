"""Several NICs in theory: what is weighed over them, what they gain, and what is said of it."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from unit.theory.situations import ALL, WISH, measured, situation
from whimbrel.model.inventory import Capability
from whimbrel.model.memory import Survey, WireRatio
from whimbrel.model.method import Codec, Compression, Method, Settings, Tuning
from whimbrel.model.plain import plain, shaped
from whimbrel.model.plan import Candidate
from whimbrel.theory.candidates import variants
from whimbrel.theory.explain import described
from whimbrel.theory.planning import plan_move
from whimbrel.theory.simulate import simulate
from whimbrel.theory.situation import Situation

from .guests import still_guest

SETTINGS = Settings()
RATIO = WireRatio(0.35, 0.4, 0.03)


def on_two(gain: float, *, of: Situation | None = None, **more: object) -> Situation:
    """Return a situation whose NICs together carry so many times what the first does."""
    plain_one = of or situation(**more)  # type: ignore[arg-type]
    link = plain_one.survey.link
    together = replace(link, goodput={count: rate * gain for count, rate in link.goodput.items()})
    survey = replace(plain_one.survey, link=replace(link, multipath=together))
    return replace(plain_one, survey=survey)


def test_one_stream_and_several_channels_are_weighed_over_all_nics_and_over_one() -> None:
    possible, _ = variants(on_two(2.0), SETTINGS, WISH)
    ways = {(each.method, each.tuning.channels, each.tuning.multipath) for each in possible}
    assert {(Method.MULTINIC, None, True), (Method.TCP, None, False)} <= ways
    assert {(Method.MULTICHANNEL, 2, True), (Method.MULTICHANNEL, 2, False)} <= ways
    assert not any(each.tuning.multipath for each in possible if each.method is Method.RDMA)


def test_where_one_nic_is_known_nothing_is_spread_and_the_reason_is_told() -> None:
    possible, rejected = variants(situation(), SETTINGS, WISH)
    assert not any(each.tuning.multipath for each in possible)
    [no] = [each for each in rejected if each.method is Method.MULTINIC]
    assert "one NIC only" in no.reason


def test_without_mptcp_on_a_host_that_is_the_reason() -> None:
    alone = situation(common=ALL - {Capability.MPTCP})
    possible, rejected = variants(on_two(2.0, of=alone), SETTINGS, WISH)
    assert not any(each.tuning.multipath for each in possible)
    [no] = [each for each in rejected if each.method is Method.MULTINIC]
    assert "mptcp" in no.reason


def test_two_nics_that_carry_twice_as_much_are_taken() -> None:
    slow = situation(_slow())
    plan = plan_move(on_two(2.0, of=slow), SETTINGS, WISH, generator=np.random.default_rng(1))
    assert plan.chosen is not None
    assert plan.chosen.candidate.tuning.multipath


def test_nics_that_together_carry_no_more_than_one_are_left_alone() -> None:
    slow = situation(_slow())
    plan = plan_move(on_two(1.0, of=slow), SETTINGS, WISH, generator=np.random.default_rng(1))
    assert plan.chosen is not None
    assert not plan.chosen.candidate.tuning.multipath


@given(st.floats(1.0, 4.0))
@settings(max_examples=10, deadline=None)
def test_more_nics_are_never_slower(gain: float) -> None:
    survey = on_two(gain, of=situation(_slow())).survey
    one, all_of_them = (simulate(survey, Tuning(multipath=each)) for each in (False, True))
    assert all_of_them.total_time <= one.total_time * 1.005 + 0.1


def test_a_survey_of_several_nics_can_be_written_down_and_read_again() -> None:
    survey = on_two(2.0).survey
    assert shaped(Survey, plain(survey)) == survey


def test_several_channels_over_all_nics_are_called_so() -> None:
    both = Tuning(channels=4, multipath=True)
    assert described(Candidate(Method.MULTICHANNEL, both)).endswith("4 channels, over all NICs")
    assert described(Candidate(Method.MULTINIC, Tuning(multipath=True))) == "multinic"


def test_more_channels_are_weighed_where_cores_are_idle_and_allowed() -> None:
    idle = situation()
    many = replace(
        idle.survey,
        source=replace(idle.survey.source, spare_cores=16.0),
        destination=replace(idle.survey.destination, spare_cores=9.0),
    )

    def counts(of: Situation, budget: float | None) -> set[int | None]:
        possible, _ = variants(of, SETTINGS, replace(WISH, cpu_budget=budget))
        return {each.tuning.channels for each in possible if each.method is Method.MULTICHANNEL}

    assert counts(idle, None) == {2, 4}
    assert counts(replace(idle, survey=many), None) == {2, 4, 8}
    assert counts(replace(idle, survey=many), 2.0) == {2, 4}


def test_higher_levels_are_weighed_where_cores_are_idle_or_where_one_was_set() -> None:
    higher = Compression(Codec.ZSTD, 3)
    few = situation()
    memory = replace(few.survey.memory, ratios={**few.survey.memory.ratios, higher: RATIO})
    speeds = {**few.survey.source.compress_speed, higher: 200e6}
    source = replace(few.survey.source, compress_speed=speeds)
    few = replace(few, survey=replace(few.survey, memory=memory, source=source))
    idle = replace(
        few.survey,
        source=replace(source, spare_cores=8.0),
        destination=replace(few.survey.destination, spare_cores=8.0),
    )

    def weighed(of: Situation, told: Settings = SETTINGS) -> bool:
        possible, _ = variants(of, told, WISH)
        return higher in {each.tuning.compression for each in possible}

    assert not weighed(few)
    assert weighed(few, replace(SETTINGS, compression=higher))
    assert weighed(replace(few, survey=idle))


def _slow() -> Survey:
    survey = measured(still_guest())
    link = replace(survey.link, goodput={1: 12.5e6, 2: 12.5e6})
    return replace(survey, link=link)
