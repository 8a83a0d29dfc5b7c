"""Tables of the report as HTML: numbers to the right, each as a size and in bytes, shares with bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from deadweight.report.html.markup import Child, Markup, joined, tag
from deadweight.sizes import show_share, show_size

Cells = Sequence[Markup]


def table(caption: str, headers: Sequence[str], rows: Iterable[Cells], total: Cells | None = None) -> Markup:
    """A table. `headers` begin with `#` where a column has numbers, with `#=` where exact bytes, which small screens
    leave out, with `*` where it is the one that the rows are sorted by, largest first.
    """
    head = tag("thead", tag("tr", (_header(text) for text in headers)))
    body = tag("tbody", (tag("tr", row) for row in rows))
    foot = tag("tfoot", tag("tr", total)) if total is not None else Markup()
    made = tag("table", tag("caption", caption), head, body, foot)
    return tag("div", made, class_="scroll", tabindex="0", role="region", aria_label=caption)


def _header(text: str) -> Markup:
    descending = text.startswith("*")
    text = text.removeprefix("*")
    kind = "n exact" if text.startswith("#=") else "n" if text.startswith("#") else None
    shown = text.removeprefix("#").removeprefix("=")
    return tag("th", shown, scope="col", class_=kind, aria_sort="descending" if descending else None)


def size(amount: int) -> Cells:
    """Two cells: a size for people, and the bytes."""
    return (
        tag("td", show_size(amount), class_="n", data_v=amount),
        tag("td", f"{amount:,}", class_="n exact", data_v=amount),
    )


def growth(amount: int) -> Cells:
    """Two cells: a difference for people, and in bytes. Growth has a sign as well."""
    sign = "+" if amount > 0 else ""
    return (
        tag("td", f"{sign}{show_size(amount)}", class_="n", data_v=amount),
        tag("td", f"{sign}{amount:,}", class_="n exact", data_v=amount),
    )


def share(part: int, whole: int, kind: str = "") -> Markup:
    """A cell with a share of a whole, and a bar."""
    return tag(
        "td", tag("span", bar(part, whole, kind), show_share(part, whole), class_="share"), class_="n", data_v=part
    )


def bar(part: int, whole: int, kind: str = "") -> Markup:
    """A bar; SVG, since the page allows no style attributes."""
    width = 100 * min(max(part, 0), whole) / whole if whole else 0
    return tag(
        "svg", tag("rect", width=f"{width:.2f}%", height="100%"), class_=f"bar {kind}".rstrip(), aria_hidden="true"
    )


def number(amount: int) -> Markup:
    """A cell with a count."""
    return tag("td", f"{amount:,}", class_="n", data_v=amount)


def words(text: Child, kind: str | None = None) -> Markup:
    """A cell with text."""
    return tag("td", text, class_=kind)


def strip(parts: Sequence[tuple[str, int, str]], named: int = 7) -> Markup:
    """Parts of a whole, (title, bytes, class) each, as one bar over the width, and a key of the first of them."""
    whole = sum(amount for _, amount, _ in parts)
    at = 0.0
    rects = []
    for _, amount, kind in parts:
        width = 100 * amount / whole if whole else 0
        rects.append(tag("rect", x=f"{at:.3f}%", width=f"{width:.3f}%", height="100%", class_=kind))
        at += width
    key = [
        tag("li", _swatch(kind), f"{title} ", tag("span", show_size(amount), class_="n size"))
        for title, amount, kind in parts[:named]
    ]
    rest = sum(amount for _, amount, _ in parts[named:])
    if rest:
        key.append(tag("li", "others ", tag("span", show_size(rest), class_="n size")))
    bar_ = tag("svg", rects, class_="strip", aria_hidden="true")
    return joined([bar_, tag("ul", key, class_="key")])


def _swatch(kind: str) -> Markup:
    return tag("svg", tag("rect", width="100%", height="100%", class_=kind), aria_hidden="true")
