"""HTML building blocks of the report: one self-contained page that asks the network for nothing.

A few lines of script sort a table by a click on its header and enlarge an image by a click on it; without scripts the
page says the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_STYLE = """
:root { --ink: #1f2430; --soft: #5d6575; --line: #e3e6ec; --paper: #ffffff; --ground: #f5f6f9; --method: #1764c0;
  --control: #8b93a3; --good: #e7f2e4; --warn: #fff4d6; --warn-ink: #7a5600; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", Arial, sans-serif; }
main { max-width: 1400px; margin: 0 auto; padding: 28px 32px 64px; }
header h1 { font-size: 27px; margin: 0 0 4px; letter-spacing: -.01em; }
header .sub { color: var(--soft); margin: 0 0 18px; }
h2 { font-size: 19px; margin: 0 0 4px; }
h3 { font-size: 15px; margin: 22px 0 8px; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 20px 24px 22px;
  margin: 18px 0; }
section > p, p.lead { color: var(--soft); margin: 2px 0 14px; max-width: 92ch; }
dl.about { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 0; font-size: 13.5px; }
dl.about dt { color: var(--soft); } dl.about dd { margin: 0; overflow-wrap: anywhere; }
.verdict { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 10px; }
.tile { border: 1px solid var(--line); border-radius: 8px; padding: 9px 12px; }
.tile b { display: block; font-size: 13px; } .tile .who { font-weight: 600; } .tile .what { font-size: 12.5px; }
.tile.nothing { background: var(--warn); border-color: #f0dfad; } .tile.nothing .what { color: var(--warn-ink); }
.tile.telling { background: var(--good); border-color: #cfe4c8; } .tile.telling .what { color: #2f6a22; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; width: 100%; }
th, td { padding: 5px 6px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
thead th { border-bottom: 2px solid #c9ced9; font-weight: 600; vertical-align: bottom; }
thead th small { display: block; font-weight: 400; color: var(--soft); }
tr.method td:first-child { color: var(--method); font-weight: 600; }
tr.first-control td { border-top: 2px solid #c9ced9; }
td small { display: block; color: var(--soft); font-size: 10.5px; font-weight: 400; }
td.best { font-weight: 700; background: #eaf1fb; }
td.best.nothing, th.nothing { background: var(--warn); }
td.ahead { color: #2f6a22; font-weight: 600; } td.behind { color: #9c2f2f; } td.even { color: var(--soft); }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 22px 30px; }
svg.plot { width: 100%; height: auto; display: block; font: 11px system-ui, "DejaVu Sans", Arial, sans-serif; }
.plot-title { font-size: 13px; font-weight: 600; fill: var(--ink); } .plot-hint, .tick { fill: var(--soft); }
.plot-label { fill: var(--soft); } .plot-label.method { fill: var(--method); font-weight: 600; }
.grid { stroke: var(--line); stroke-width: 1; }
.mark.control line { stroke: #b9c0cd; } .mark.control circle { fill: var(--control); }
.mark.method line { stroke: #8db7ea; } .mark.method circle { fill: var(--method); }
.mark .bar { stroke-width: 5; stroke-linecap: round; }
.example { margin: 22px 0 4px; } .example h3 { margin: 0; } .example p { margin: 0 0 8px; color: var(--soft); }
.cells { display: grid; gap: 14px 12px; grid-template-columns: repeat(3, 1fr); }
.cells.by4 { grid-template-columns: repeat(4, 1fr); } .cells.by5 { grid-template-columns: repeat(5, 1fr); }
@media (max-width: 900px) { .cells.by3, .cells.by4, .cells.by5 { grid-template-columns: repeat(2, 1fr); } }
figure { margin: 0; } figure img { width: 100%; display: block; border-radius: 4px; }
figure img + img { margin-top: 4px; }
figcaption { font-size: 12.5px; line-height: 17px; padding: 0 0 4px; font-weight: 600;
  display: flex; flex-direction: column; justify-content: flex-end; }
figcaption small { font-weight: 400; color: var(--soft); font-size: 11.5px; }
.tall figcaption { min-height: 38px; }
figure.method figcaption { color: var(--method); } figure.source figcaption { color: var(--soft); }
details { border-top: 1px solid var(--line); padding: 8px 0; } details > summary { cursor: pointer; font-weight: 600; }
details > summary span { font-weight: 400; color: var(--soft); }
footer { color: var(--soft); font-size: 13px; }
.heat { table-layout: fixed; min-width: 900px; } .heat th:first-child { width: 200px; }
.heat td, .heat th { text-align: center; white-space: normal; }
.heat td:first-child, .heat th:first-child { text-align: left; }
th[aria-sort], .sortable th { cursor: pointer; }
th[aria-sort=ascending]::after { content: " \25B4"; } th[aria-sort=descending]::after { content: " \25BE"; }
figure img { cursor: zoom-in; }
#zoom { position: fixed; inset: 0; padding: 20px; background: rgba(15, 18, 26, .92); display: none; cursor: zoom-out;
  flex-direction: column; gap: 8px; align-items: center; justify-content: center; color: #fff; }
#zoom.shown { display: flex; } #zoom img { width: 100%; height: 100%; min-height: 0; object-fit: contain; }
@media print { body { background: #fff; } section { break-inside: avoid; } }
"""

_SCRIPT = """
const number = cell => cell.firstChild ? parseFloat(cell.firstChild.textContent) : NaN;
const text = cell => cell.textContent;
function sort(header) {
  const body = header.closest("table").tBodies[0], column = header.cellIndex;
  const down = header.getAttribute("aria-sort") !== "descending";
  for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  const compare = (one, other) => {
    const a = one.cells[column], b = other.cells[column], x = number(a), y = number(b);
    if (isNaN(x) && isNaN(y)) return text(a).localeCompare(text(b)) * (down ? 1 : -1);
    if (isNaN(x) || isNaN(y)) return isNaN(x) - isNaN(y);
    return down ? y - x : x - y;
  };
  body.append(...[...body.rows].sort(compare));
}
document.addEventListener("click", event => {
  const header = event.target.closest(".sortable thead th"), image = event.target.closest("figure img");
  const zoom = document.getElementById("zoom");
  if (header) sort(header);
  else if (image) {
    const caption = image.closest("figure").querySelector("figcaption");
    zoom.replaceChildren(image.cloneNode(), caption ? caption.textContent : "");
    zoom.classList.add("shown");
  } else zoom.classList.remove("shown");
});
document.addEventListener("keydown", event => {
  if (event.key === "Escape") document.getElementById("zoom").classList.remove("shown");
});
"""


def page(title: str, subtitle: str, about: dict[str, str], sections: Iterable[str]) -> str:
    """Render the page.

    :param title: heading, plain text
    :param subtitle: line below it, plain text
    :param about: names and values, shown as a list below the title
    :param sections: HTML from :func:`section`
    """
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in about.items())
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<header><h1>{escape(title)}</h1><p class="sub">{escape(subtitle)}</p>'
        f'<dl class="about">{facts}</dl></header>\n'
        + "\n".join(sections)
        + '\n</main>\n<div id="zoom"></div>\n'
        + f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )


def section(title: str, lead: str, content: str) -> str:
    """Render a section.

    :param title: heading, plain text
    :param lead: how to read the section, plain text
    :param content: HTML
    """
    return f"<section><h2>{escape(title)}</h2><p>{escape(lead)}</p>{content}</section>"


def table(head: list[str], rows: list[tuple[str, list[str]]], kind: str = "") -> str:
    """Render a table that scrolls horizontally.

    A click on a header sorts the rows by the numbers that its cells begin with.

    :param head: cells of the header, HTML ``th`` elements
    :param rows: CSS class and cells, HTML ``td`` elements, of each row
    :param kind: CSS class of the table
    """
    lines = "".join(f'<tr class="{name}">{"".join(cells)}</tr>' for name, cells in rows)
    return (
        f'<div class="scroll"><table class="sortable {kind}"><thead><tr>{"".join(head)}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )
