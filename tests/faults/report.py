"""A matrix as a part of a Markdown page."""

from collections.abc import Iterable, Sequence
from enum import StrEnum

from faults.row import Row
from whimbrel.errors import ExitCode

_CODES = {
    ExitCode.DONE.value: "moved",
    ExitCode.GOAL_MISSED.value: "moved",
    ExitCode.SAFE_AT_SOURCE.value: "stayed",
    ExitCode.NO_PLAN.value: "refused",
    ExitCode.HOST.value: "stayed",
}

NONE = "\N{EN DASH}"

LEGEND = """\
- **moved**: the guest runs at the destination, whimbrel by itself saw to it (exit code 0, or 8
  where the guest stood still for longer than was wanted).
- **stayed**: the guest runs at the source, nothing is left at the destination (exit code 4).
- **refused**: found out before anything was begun (exit code 3).
- **recovered, a** or **b**: whimbrel was killed, or could not know (exit code 5);
  `whimbrel recover` found the guest and cleared up. It runs at the source (a) or the
  destination (b).
- **interrupted, a** or **b**: a person interrupted it; the guest runs there (exit code 130).
- **lost**: no host has all of the guest's memory any more, which whimbrel says (exit code 5).
- **%s**: cannot be. **?**: not measured yet.
"""


WORDS = {
    "paused": "both hosts hold a part of the guest, and the post-copy cannot be taken up again "
    "with what runs there, which is said (exit code 5)",
}
"""Words that some matrices need besides."""


def cell_text(row: Row) -> str:
    """Return what one cell came to, in a word or two."""
    if row.failures:
        return "**FAILED**"
    if row.code is None:
        return NONE
    if row.word or not row.runs_on:
        return row.word or "lost"
    if row.recovered is not None:
        return f"recovered, {row.runs_on[0]}"
    if row.code == ExitCode.INTERRUPTED:
        return f"interrupted, {row.runs_on[0]}"
    return _CODES.get(row.code, f"exit code {row.code}")


def page_part(
    rows: Sequence[Row], command: str, phases: Iterable[StrEnum], faults: Iterable[StrEnum]
) -> str:
    """Return the table, its legend, the reasons, and each last word.

    Args:
        rows: What was measured.
        command: With what.
        phases: The table's columns.
        faults: Its rows.
    """
    phases, faults = list(phases), list(faults)
    found = {(row.phase, row.fault): row for row in rows}
    measured = [row for row in rows if row.code is not None]
    held = sum(not row.failures for row in measured)
    days = sorted({row.date for row in measured})
    versions = ", ".join(sorted({row.version for row in measured}))
    lines = [f"`{command}`", ""]
    when = " to ".join(dict.fromkeys([days[0], days[-1]])) if days else "never"
    score = f"{held} of {len(measured)} cells hold"
    lines += [f"Measured {when} with whimbrel {versions}: {score}.", ""]
    lines += ["| | " + " | ".join(phases) + " |", "|---|" + "---|" * len(phases)]
    for fault in faults:
        texts = [
            cell_text(found[phase, fault]) if (phase, fault) in found else "?" for phase in phases
        ]
        lines.append(f"| {fault} | " + " | ".join(texts) + " |")
    more = [f"- **{word}**: {WORDS[word]}." for word in sorted({row.word for row in rows} - {""})]
    lines += ["", *more, LEGEND % NONE]
    lines += _failures(rows) + _reasons(rows) + _words(rows, faults)
    return "\n".join(lines) + "\n"


def _failures(rows: Sequence[Row]) -> list[str]:
    found = [
        f"- {row.phase}, {row.fault}: {'; '.join(row.failures)}" for row in rows if row.failures
    ]
    return ["### What does not hold", "", *found, ""] if found else []


def _reasons(rows: Sequence[Row]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.reason:
            reasons.setdefault(row.reason, []).append(f"{row.phase}, {row.fault}")
    found = [f"- {'; '.join(where)}: {reason}." for reason, where in reasons.items()]
    return ["### Lost, or not to be", "", *found, ""] if found else []


def _words(rows: Sequence[Row], faults: Sequence[StrEnum]) -> list[str]:
    """Return what a person read at last, by fault."""
    lines = ["### The last words", ""]
    for fault in faults:
        said = [row for row in rows if row.fault is fault and row.code is not None]
        if said:
            lines += [f"{str(fault).capitalize()}:", ""]
            lines += [f"- {row.phase}: {_plain(row.last)}" for row in said]
            lines.append("")
    return lines


def _plain(words: str) -> str:
    return words.replace("<", "&lt;").replace("|", "\\|")
