"""Tables for the terminal and a page of results for the browser."""

from __future__ import annotations

import dataclasses
import html
import pathlib
from collections.abc import Mapping, Sequence

import jinja2


@dataclasses.dataclass(frozen=True)
class Table:
  """Cells as they are printed; the first column is text, the rest numbers."""

  head: Sequence[str]
  rows: Sequence[Sequence[str]]

  def __str__(self) -> str:
    lines = [self.head, *self.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
      first = cells[0].ljust(widths[0])
      rest = [c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True)]
      return "  ".join([first, *rest])

    tx = "─" * len(line(self.head))
    return "\n".join([line(self.head), tx, *map(line, self.rows)])

  def _repr_html_(self) -> str:
    """For notebooks."""

    def row(tag: str, cells: Sequence[str]) -> str:
      sides = ["left", *["right"] * (len(cells) - 1)]
      inside = "".join(
        f'<{tag} style="text-align: {side}">{html.escape(cell)}</{tag}>'
        for side, cell in zip(sides, cells, strict=True)
      )
      return f"<tr>{inside}</tr>"

    body = "".join(row("td", cells) for cells in self.rows)
    return (
      f"<table><thead>{row('th', self.head)}</thead>"
      f"<tbody>{body}</tbody></table>"
    )


@dataclasses.dataclass(frozen=True)
class Section:
  """A heading with text, a table or an image, the path from the page."""

  title: str
  text: str = ""
  table: Table | None = None
  image: str = ""
  caption: str = ""


def write_page(
  path: pathlib.Path,
  *,
  title: str,
  subtitle: str,
  verdict: str,
  sections: Sequence[Section],
  facts: Mapping[str, str],
) -> None:
  """Writes one HTML page; all text is escaped."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  page = environment.get_template("report.html").render(
    title=title,
    subtitle=subtitle,
    verdict=verdict,
    sections=sections,
    facts=facts,
  )
  path.write_text(page, encoding="utf-8")
