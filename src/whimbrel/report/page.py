"""report.html: one file that holds everything, readable without network, script or font.

Whatever comes from outside (a scenario's name, QEMU's reasons, a command line) is escaped
by `escape`; markup is made only here.
"""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from whimbrel.model.method import Tuning
from whimbrel.model.scenario import LabResult, MachineFacts, Run, ScenarioResult
from whimbrel.model.units import format_link, format_size, format_time
from whimbrel.report.images import Chart, Image
from whimbrel.report.measures import DEFINITIONS
from whimbrel.report.rows import Memory, Row, rows
from whimbrel.report.table import COLUMNS, Column
from whimbrel.report.words import (
    NOTHING,
    REFERENCE_SOURCE,
    describe_scenario,
    headline,
    honest,
    references,
)


def lab_page(result: LabResult, images: Iterable[Image], first: str = "") -> str:
    """Return the page.

    Args:
        result: Everything that was measured.
        images: Those of `charts.draw_all`, or none for a page without.
        first: A section of its own, as HTML, to stand before all others.
    """
    drawn = tuple(images)
    sections = [
        _scenario(part, [image for image in drawn if image.scenario == index])
        for index, part in enumerate(result.scenarios)
    ]
    body = [first, *sections, _definitions(), _machine(result.machine)]
    names = ", ".join(part.scenario.name for part in result.scenarios) or "a suite"
    return _document(f"whimbrel lab: {names}", "\n".join(body))


def _document(title: str, body: str) -> str:
    style = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _scenario(part: ScenarioResult, images: Sequence[Image]) -> str:
    compared = [_figure(image) for image in images if image.chart is not Chart.TIMELINE]
    lines = [_timeline(part, image) for image in images if image.chart is Chart.TIMELINE]
    return "\n".join(
        [
            "<section>",
            f'<p class="name">{escape(part.scenario.name)}</p>',
            f"<h1>{escape(headline(part))}</h1>",
            f'<p class="lead">{escape(_lead(part))}</p>',
            _table(part),
            _references(part),
            *compared,
            "<h2>Run by run</h2>" if lines else "",
            *lines,
            _settings(part),
            "</section>",
        ]
    )


def _lead(part: ScenarioResult) -> str:
    return f"{describe_scenario(part.scenario)}. {honest(part.scenario)}"


def _table(part: ScenarioResult) -> str:
    table = rows(part)
    noted = any(row.note and row.completed for row in table)
    columns = COLUMNS if noted else COLUMNS[:-1]
    head = "".join(f"<th{_class(column)}>{escape(column.title)}</th>" for column in columns)
    body = "\n".join(_row(row, columns) for row in table)
    return (
        '<div class="wide"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _row(row: Row, columns: Sequence[Column]) -> str:
    """Return a row of figures or, where no run completed, the reason across the table."""
    corrupt = row.memory is Memory.CORRUPT
    kind = ' class="corrupt"' if corrupt else ""
    if row.completed:
        texts = (f"<td{_class(column)}>{escape(column.cell(row))}</td>" for column in columns)
        return f"<tr{kind}>{''.join(texts)}</tr>"
    note = f"{row.note}; memory {row.memory.value}" if corrupt else row.note
    across = f'<td class="why" colspan="{len(columns) - 1}">{escape(note)}</td>'
    return f"<tr{kind}><td>{escape(row.name)}</td>{across}</tr>"


def _class(column: Column) -> str:
    return ' class="number"' if column.number else ""


def _references(part: ScenarioResult) -> str:
    items = "".join(f"<li>{escape(str(one))}</li>" for one in references(part.scenario))
    if not items:
        return ""
    said = f"For a VM of the same size ({REFERENCE_SOURCE}):"
    return f'<div class="published"><p>{escape(said)}</p><ul>{items}</ul></div>'


def _figure(image: Image) -> str:
    return picture(image.light, image.dark, image.alt)


def picture(light: bytes, dark: bytes, alt: str) -> str:
    """Return a PNG of each theme as one figure that needs no other file."""
    return (
        "<figure><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{_data(dark)}">'
        f'<img src="{_data(light)}" alt="{escape(alt)}">'
        "</picture></figure>"
    )


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _timeline(part: ScenarioResult, image: Image) -> str:
    run = part.runs[image.run or 0]
    return f"<details><summary>{_summary(run)}</summary>\n{_chosen(run)}{_figure(image)}</details>"


def _chosen(run: Run) -> str:
    """Show what `auto` decided and why, its ladder, and its advice; nothing for other methods."""
    if run.chosen is None:
        return ""
    said = {
        "Chosen": run.chosen.reasons,
        "Should it not complete": run.chosen.ladder,
        "Advice": run.chosen.advice,
    }
    return "".join(
        f"<p>{escape(title)}:</p><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>\n"
        for title, lines in said.items()
        if lines
    )


def _summary(run: Run) -> str:
    wall = run.observed.wall_time
    time = "" if wall is None else f", {format_time(wall)}"
    words = f"run {run.repeat}: {run.ending.value}{time}"
    return f"<b>{escape(run.preset or run.method.value)}</b> {escape(words)}"


def _settings(part: ScenarioResult) -> str:
    """Show what every method was set to; the same tuning for all repeats stands once."""
    tunings = {run.preset or run.method.value: run.tuning for run in part.runs if run.tuning}
    if not tunings:
        return ""
    listed = {name: dict(describe_tuning(tuning)) for name, tuning in tunings.items()}
    settings = next(iter(listed.values()))
    head = "".join(f"<th>{escape(name)}</th>" for name in listed)
    body = "\n".join(
        f"<tr><th>{escape(setting)}</th>"
        + "".join(f"<td>{escape(tuning[setting])}</td>" for tuning in listed.values())
        + "</tr>"
        for setting in settings
    )
    return (
        "<details><summary><b>Settings</b> exactly as each method was given them</summary>\n"
        '<div class="wide"><table class="settings">\n'
        f"<thead><tr><th></th>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div></details>"
    )


def describe_tuning(tuning: Tuning) -> tuple[tuple[str, str], ...]:
    """Return every setting of a tuning with its value in words, always the same names."""
    compression, prepared = tuning.compression, tuning.prepared_memory
    cap = "QEMU's default" if tuning.as_qemu_comes else "none"
    limit = cap if tuning.bandwidth_limit is None else format_link(tuning.bandwidth_limit)
    known = tuning.switchover_bandwidth
    cache = tuning.xbzrle_cache
    return (
        ("transport", tuning.transport.value),
        ("channels", "one stream" if tuning.channels is None else str(tuning.channels)),
        ("compression", f"{compression.codec}:{compression.level}" if compression else NOTHING),
        ("XBZRLE cache", NOTHING if cache is None else format_size(cache)),
        ("throttling", _yes(tuning.throttling)),
        ("post-copy", tuning.postcopy.value),
        ("bandwidth limit", limit),
        ("downtime limit", format_time(tuning.downtime_limit)),
        ("switchover bandwidth", "QEMU's estimate" if known is None else format_link(known)),
        ("memory prepared by", f"{prepared.threads} threads" if prepared else NOTHING),
        ("free page hints", _yes(tuning.free_page_hints)),
        ("all memory pinned", _yes(tuning.pin_all)),
        ("sent without copying", _yes(tuning.zero_copy)),
        ("over all NICs", _yes(tuning.multipath)),
        ("encrypted", _yes(tuning.encrypted)),
        ("QEMU's defaults kept", _yes(tuning.as_qemu_comes)),
    )


def _yes(setting: bool) -> str:  # noqa: FBT001 - it is the value, not a switch
    return "yes" if setting else "no"


def _definitions() -> str:
    items = "\n".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in DEFINITIONS)
    return f"<section>\n<h2>What the figures mean</h2>\n<dl>\n{items}\n</dl>\n</section>"


def _machine(machine: MachineFacts) -> str:
    facts = (
        ("Processor", f"{machine.cpu}, {machine.cores} cores, {machine.numa_nodes} NUMA nodes"),
        ("Memory", format_size(machine.memory)),
        ("Accelerator", machine.accelerator),
        ("Hypervisor", machine.hypervisor),
        ("Kernel", machine.kernel),
        ("Distribution", machine.distribution),
        ("whimbrel", machine.whimbrel),
        ("Started", machine.started),
    )
    items = "\n".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in facts)
    return (
        f"<section>\n<h2>Machine and versions</h2>\n<dl>\n{items}\n</dl>\n"
        f"<p>The same again:</p>\n<pre>{escape(machine.command)}</pre>\n</section>"
    )
