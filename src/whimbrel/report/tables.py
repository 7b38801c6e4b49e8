"""Tables of a suite as texts, for whoever shows them: Markdown and HTML here."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        title: What it shows.
        note: How to read it, one or two sentences.
        columns: The headings; every column but the first is right-aligned.
        rows: Texts for every column.
    """

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables_markdown(title: str, said: Sequence[str], tables: Sequence[Table]) -> str:
    """Return sentences and tables as Markdown under a title."""
    parts = [f"# {title}", "", *(f"- {line}" for line in said), ""]
    for table in tables:
        rule = ["---", *["---:" for _ in table.columns[1:]]]
        parts += [f"## {table.title}", "", table.note, ""]
        parts += [_line(table.columns), _line(rule), *(_line(row) for row in table.rows), ""]
    return "\n".join(parts)


def tables_html(
    title: str, said: Sequence[str], tables: Sequence[Table], pictures: Sequence[str] = ()
) -> str:
    """Return the same as one section of a page; `pictures` are figures made elsewhere."""
    lines = "".join(f"<li>{escape(line)}</li>" for line in said)
    parts = ["<section>", f"<h1>{escape(title)}</h1>", f"<ul>{lines}</ul>", *pictures]
    for table in tables:
        head = "".join(_cell("th", text, index) for index, text in enumerate(table.columns))
        body = "\n".join(
            "<tr>" + "".join(_cell("td", text, index) for index, text in enumerate(row)) + "</tr>"
            for row in table.rows
        )
        parts.append(
            f"<h2>{escape(table.title)}</h2>\n<p>{escape(table.note)}</p>\n"
            f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n'
            f"<tbody>\n{body}\n</tbody>\n</table></div>"
        )
    return "\n".join([*parts, "</section>"])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _cell(tag: str, text: str, index: int) -> str:
    kind = ' class="number"' if index else ""
    return f"<{tag}{kind}>{escape(text)}</{tag}>"
