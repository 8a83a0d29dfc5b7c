"""Markdown as GitHub reads it: cmark-gfm, GitHub's own parser, and what stands in the page that it makes."""

from __future__ import annotations

from html.parser import HTMLParser

import cmarkgfm
from cmarkgfm.cmark import Options

HOSTILE = (
    "a|b `c` ``d <script>alert(1)</script> <img src=x> [x](javascript:alert(1)) ![y](http://evil.example/y.png) "
    "@everyone #123 GH-7 org/repo#8 0123456789abcdef0123456789abcdef01234567 www.evil.example a@evil.example "
    "https://evil.example **bold** _it_ ~~s~~ $x$ &amp; &#64;user \\| \\` :tada: \x1b[31m "
    "\u202e \u200b\n# heading\n\n- item"
)
"""A name that tries everything that GitHub's Markdown, and GitHub itself, makes something of."""
OURS = {"h3", "h4", "p", "table", "thead", "tbody", "tr", "th", "td", "code", "strong", "ul", "li"}


class Page(HTMLParser):
    """The page that a document becomes."""

    def __init__(self, markdown: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.headings: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        """Rows of cells by the heading before, the row of headers first; of tables that have one each."""
        self.outside = ""
        """The text that is in no code span, which GitHub looks through for mentions and the like."""
        self.text = ""
        self._open: list[str] = []
        page = cmarkgfm.github_flavored_markdown_to_html(markdown, Options.CMARK_OPT_UNSAFE)
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self._open.append(tag)
        if tag in ("h3", "h4"):
            self.headings.append("")
        elif tag == "table":
            self.tables[self.headings[-1]] = []
        elif tag == "tr":
            self.tables[self.headings[-1]].append([])
        elif tag in ("td", "th"):
            self.tables[self.headings[-1]][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text += data
        if "code" not in self._open:
            self.outside += data
        if {"h3", "h4"} & set(self._open):
            self.headings[-1] += data
        elif {"td", "th"} & set(self._open):
            self.tables[self.headings[-1]][-1][-1] += data

    def numbers(self, heading: str) -> list[int]:
        """The first column of a table of bytes: each row's, and the total."""
        return [int(row[0].replace(",", "")) for row in self.tables[heading][1:]]
