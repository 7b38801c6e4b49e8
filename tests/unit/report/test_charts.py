"""Charts: whole pictures in both themes, for any result a lab can have."""

import io
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from PIL import Image as Picture
from PIL import ImageColor

from unit.report.samples import (
    MACHINE,
    completed,
    every_method,
    failed,
    result,
    scenario,
    timed_out,
    unavailable,
)
from whimbrel.model.method import Method
from whimbrel.model.scenario import (
    LabResult,
    LinkSpec,
    Measure,
    Observed,
    Run,
    ScenarioResult,
    Track,
)
from whimbrel.report.canvas import DPI, SMALL, WIDTH, Theme, shorten
from whimbrel.report.charts import DARK, LIGHT, downtime, draw_all, timeline, times, wire_bytes
from whimbrel.report.images import Chart, image_names
from whimbrel.report.panels import apart, panels

COMPARISONS = (times, downtime, wire_bytes)
Comparison = Callable[[ScenarioResult, Theme], bytes]


def opened(png: bytes) -> Picture.Image:
    picture = Picture.open(io.BytesIO(png))
    assert picture.format == "PNG"
    return picture.convert("RGB")


def colours(png: bytes) -> set[tuple[int, ...]]:
    found = opened(png).getcolors(1 << 16)
    assert found is not None
    return {colour for _, colour in found if isinstance(colour, tuple)}


def near(colour: str, found: set[tuple[int, ...]]) -> bool:
    """Whether a colour is there but for the palette's rounding."""
    wanted = ImageColor.getrgb(colour)
    return any(max(abs(a - b) for a, b in zip(wanted, c, strict=True)) <= 3 for c in found)


def alone(*runs: Run, methods: tuple[Method, ...] = (Method.TCP,)) -> ScenarioResult:
    return ScenarioResult(scenario(methods), runs)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("chart", COMPARISONS)
def test_a_chart_has_its_themes_paper_and_the_pages_width(chart: Comparison, theme: Theme) -> None:
    picture = opened(chart(result().scenarios[0], theme))
    assert picture.width == round(WIDTH * DPI)
    assert picture.getpixel((1, 1)) == ImageColor.getrgb(theme.paper)


@pytest.mark.parametrize("chart", COMPARISONS)
def test_every_method_has_its_line(chart: Comparison) -> None:
    few, many = result().scenarios[0], every_method().scenarios[0]
    lines = len(many.scenario.methods) - len(few.scenario.methods)
    growth = opened(chart(many, LIGHT)).height - opened(chart(few, LIGHT)).height
    assert growth == pytest.approx(lines * 0.37 * DPI, abs=2)


@pytest.mark.parametrize("chart", [times, wire_bytes])
def test_what_was_not_measured_has_stripes_and_no_bar(chart: Comparison) -> None:
    found = colours(chart(alone(unavailable(), methods=(Method.RDMA,)), LIGHT))
    assert not near(LIGHT.main, found)
    assert near(LIGHT.main, colours(chart(alone(completed(Method.TCP)), LIGHT)))


@pytest.mark.parametrize("chart", COMPARISONS)
@pytest.mark.parametrize(
    "runs",
    [
        (),
        (failed(Method.TCP),),
        (replace(completed(Method.TCP), observed=Observed()),),
        (replace(completed(Method.TCP), observed=Observed(wall_time=0.0, downtime_reported=0.0)),),
        (replace(completed(Method.TCP), observed=Observed(wall_time=1e9, wire_bytes=1)),),
        (replace(failed(Method.TCP), reason="costs $5 and $6 \n" + "word " * 60),),
    ],
    ids=["no runs", "failed", "nothing known", "zero", "huge", "long words"],
)
def test_any_result_can_be_drawn(chart: Comparison, runs: tuple[Run, ...]) -> None:
    assert opened(chart(alone(*runs), DARK)).height > 0


def test_the_same_facts_give_the_same_bytes() -> None:
    part = result().scenarios[0]
    assert times(part, LIGHT) == times(part, LIGHT)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_a_time_line_marks_the_switchover(theme: Theme) -> None:
    run = replace(completed(Method.TCP), predicted=None)  # its passes have the same colour
    assert near(theme.accent, colours(timeline(run, scenario(), theme)))
    unmarked = replace(run, phases=())
    assert not near(theme.accent, colours(timeline(unmarked, scenario(), theme)))


def test_a_time_line_has_a_panel_for_each_kind_of_counter() -> None:
    run = completed(Method.POSTCOPY, nics=2, cores=16)
    assert len(panels(run, LinkSpec(count=2))) == 7
    for measure in Measure:
        without = replace(run, tracks=tuple(t for t in run.tracks if t.measure is not measure))
        assert len(panels(without, LinkSpec())) in {6, 7}
    assert panels(replace(run, tracks=()), LinkSpec()) == []


@pytest.mark.parametrize(
    "track",
    [
        Track(Measure.CPU_HOST, "host a", (), ()),
        Track(Measure.CPU_HOST, "host a", (1.0,), (0.5,)),
        Track(Measure.CPU_HOST, "host a", (0.0, 1.0, 2.0), (0.5, float("nan"), 1.0)),
        Track(Measure.SENT, "host a wire0", (0.0, 1.0), (0.0, 0.0)),
        Track(Measure.HEARTBEAT_GAP, "guest", (0.0, 1.0), (0.0, 0.0)),
        Track(Measure.CPU_CORE, "core 0", (0.0,), (0.0,)),
        Track(Measure.REMAINING, "QEMU", (0.0, 0.0), (5.0, 6.0)),
    ],
)
def test_any_track_can_be_drawn(track: Track) -> None:
    run = replace(completed(Method.TCP), tracks=(track,), observed=Observed(), phases=())
    assert opened(timeline(run, scenario(), LIGHT)).height > 0


def test_no_peak_of_the_heartbeat_is_lost_by_thinning() -> None:
    values = [0.005] * 20_001
    values[12_345] = 0.9
    track = Track(
        Measure.HEARTBEAT_GAP, "guest", tuple(i * 0.005 for i in range(20_001)), tuple(values)
    )
    flat = replace(track, values=(0.005,) * 20_001)
    runs = [replace(completed(Method.TCP), tracks=(t,)) for t in (track, flat)]
    heights = [timeline(run, scenario(), LIGHT) for run in runs]
    assert heights[0] != heights[1]


def test_labels_are_moved_apart_and_stay_in_the_panel() -> None:
    places = apart([0.5, 0.5, 0.95, 0.99], 0.13)
    gaps = [later - earlier for earlier, later in pairwise(places)]
    assert min(gaps) >= 0.13 - 1e-9
    assert max(places) <= 1


def test_a_long_text_is_cut_at_a_word() -> None:
    assert shorten("one two,  three", 40) == "one two, three"
    assert shorten("one two, three", 9) == "one two \N{HORIZONTAL ELLIPSIS}"


def test_all_charts_of_a_result_have_names_of_their_own() -> None:
    part = alone(completed(Method.TCP), timed_out(Method.TCP, 2), unavailable())
    images = list(draw_all(LabResult(MACHINE, (part, part))))
    names = [image.name for image in images]
    assert len(set(names)) == len(names) == 2 * (3 + 2)
    assert [i.run for i in images if i.chart is Chart.TIMELINE] == [0, 1, 0, 1]
    assert all(image.alt and image.light != image.dark for image in images)


def test_scenarios_of_one_name_get_file_names_of_their_own() -> None:
    names = ("Busy / DB", "busy db", "busy-db-2", "…", "busy db")
    parts = tuple(ScenarioResult(replace(scenario(), name=name), ()) for name in names)
    made = image_names(LabResult(MACHINE, parts))
    assert len(set(made)) == len(made)
    assert made[:2] == ["busy-db", "busy-db-2"]
    assert made[3] == "scenario"


def test_type_is_large_enough_to_read() -> None:
    assert SMALL >= 7.5
