"""The numbers in the tables of an HTML report, without a browser."""

from __future__ import annotations

from html.parser import HTMLParser


class Tables(HTMLParser):
    """The exact bytes of each table by its caption: of each row the numbers that its cells have as `data-v`."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: dict[str, list[list[int]]] = {}
        self._caption: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "caption":
            self._caption = ""
        elif tag == "tr" and self.rows:
            next(reversed(self.rows.values())).append([])
        elif tag == "td" and self.rows:
            value = dict(attrs).get("data-v") or ""
            if value.lstrip("-").isdecimal():
                next(reversed(self.rows.values()))[-1].append(int(value))

    def handle_data(self, data: str) -> None:
        if self._caption is not None:
            self._caption += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "caption" and self._caption is not None:
            self.rows[self._caption] = []
            self._caption = None

    def numbers(self, caption: str) -> list[int]:
        """The first number of each row that has any, the total last."""
        return [row[0] for row in self.rows[caption] if row]
