"""The browser: a list of what a node is made of, the largest first, and what there is to say of the one at the cursor.

Texts of images are shown as they are, as `rich.text.Text`: nothing in them is markup.
"""

from __future__ import annotations

import select
import sys
from typing import ClassVar, Final

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.coordinate import Coordinate
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import DataTable, Static

from deadweight.explore.view import FOUND_LIMIT, GROUPINGS, ORDERS, Line, View
from deadweight.report.hierarchy import Node
from deadweight.report.shorten import shorten
from deadweight.report.tables import bar
from deadweight.report.text import plain
from deadweight.sizes import show_share, show_size

ROWS: Final = 1000
"""How many rows are shown; what is left out is one more."""
BAR: Final = 8
GAP: Final = 2
SCROLL_BAR: Final = 2
NAME: Final = 16
"""Columns that names are to have at the least: where there are fewer, columns of numbers go."""
TITLE: Final = 10
"""Columns that the image's name is to have at the least."""
OTHERS: Final = 3
"""Rows of a terminal that are neither of the list nor of the details."""
DETAILS: Final = 8
TALL: Final = 32
"""Rows of a terminal that has room for more details."""
MORE_DETAILS: Final = 12
FEW_DETAILS: Final = 2
"""Rows below which there are none: the first is a line."""
HELP: Final = """\
Up, Down, PgUp, PgDn   move
Enter, Right, l        into the row; of one without parts, all about it
Left, Backspace, h     out again
g                      group by owner, layer, category, directory
1 2 3 4                the same, each by its number
s                      sort by size, by what leaves, by name
d                      all that is known of the row
/                      find by name or path; Enter goes there, Esc back
?                      this help
q                      quit

The rows of a list add up to what they are parts of; bars and shares are
of that. With --plan, `after` is what would be left, and bars are of what
would leave."""
KEYS: Final = (
    *(("Enter", "in"), ("Left", "out"), ("g", "group"), ("s", "sort"), ("d", "details"), ("/", "find")),
    *(("?", "help"), ("q", "quit")),
)
LAST_TO_GO: Final = ("q", "?", "Enter", "Left", "/", "g", "s", "d")
"""Which of these are named where there is no room for all: the first ones."""
MARK: Final = "> "
"""Before the row at the cursor: not every terminal has colours."""


class Listing(DataTable[Text]):
    """The rows; left and right go out and in.

    It has the focus all the time: what is typed to be found goes through it as well, so that no key overtakes `/`.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,right,l", "app.into", "in"),
        Binding("left,backspace,h", "app.out", "out"),
    ]

    def on_key(self, event: Key) -> None:
        """Offers each key to the line that is typed."""
        app = self.app
        assert isinstance(app, Explorer)
        if app.typed(event.key, event.character if event.is_printable else None):
            event.stop()
            event.prevent_default()


class Note(ModalScreen[None]):
    """A text over the list, until a key takes it away."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,enter,d,left,backspace,h", "dismiss", "close")
    ]

    def __init__(self, text: Text) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """The text alone."""
        with VerticalScroll(id="note"):
            yield Static(self._text)


class Explorer(App[None]):
    """Browses a tree of bytes."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #head { height: 2; padding: 0 1; }
    Listing { height: 1fr; }
    #details { padding: 0 1; border-top: solid $primary; }
    #keys { height: 1; padding: 0 1; }
    Note { align: center middle; }
    #note { width: 78; max-width: 100%; height: auto; max-height: 100%; border: round $primary; padding: 0 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("g", "group", "group"),
        Binding("s", "sort", "sort"),
        Binding("d", "details", "details"),
        Binding("question_mark", "help", "help"),
        Binding("q,ctrl+c", "quit", "quit"),
        Binding("escape", "leave", "back"),
        *(Binding(str(number), f"group('{name}')", name) for number, name in enumerate(GROUPINGS, 1)),
    ]

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view
        self.grouping = next(iter(GROUPINGS))
        self.order = ORDERS[0]
        self.line: Line = (view.root(self.grouping),)
        """What is listed, and what it is a part of."""
        self.found: list[Line] | None = None
        """What a search found, while that is listed."""
        self.words = ""
        self.typing: str | None = None
        """What has been typed of what is to be found; None while nothing is asked."""
        self.rows: list[Line] = []
        self._details: dict[int, Text] = {}
        self._marked: int | None = None

    def compose(self) -> ComposeResult:
        """Head, list, details, and the keys."""
        yield Static(id="head")
        yield Listing(cursor_type="row", cell_padding=0)
        yield Static(id="details")
        yield Static(id="keys")

    def on_mount(self) -> None:
        """Fills the list."""
        self.screen.set_focus(self._list())
        self._keys()
        self._fill()
        if not self.is_headless:
            self.set_interval(1, self._leave_with_terminal)

    def _leave_with_terminal(self) -> None:
        """Ends where the terminal is gone: Textual would go on reading its end, and keep a processor busy."""
        poll = select.poll()
        poll.register(sys.__stdin__ or 0, 0)
        if poll.poll(0):  # asked for nothing: it was hung up
            self.exit()

    def on_resize(self) -> None:
        """Fits names and keys to the new width, and details to the height: the list has no less room than they."""
        most = MORE_DETAILS if self.size.height >= TALL else DETAILS
        details = self.query_one("#details", Static)
        rows = min(most, (self.size.height - OTHERS) // 2)
        details.styles.height = rows
        details.display = rows >= FEW_DETAILS
        self._keys()
        if self.rows:
            self._fill(self.rows[self._list().cursor_row][-1])

    def action_into(self) -> None:
        """Lists what the row at the cursor is made of, or goes to where a search found it."""
        row = self._at_cursor()
        if row is None:
            return
        if self.found is not None:
            self.found = None
            self.line = row[:-1]
            self._fill(row[-1])
        elif row[-1].children:
            self.line = row
            self._fill()
        else:
            self.action_details()

    def action_out(self) -> None:
        """Lists what the listed node is a part of."""
        if self.found is not None:
            self.action_leave()
        elif len(self.line) > 1:
            came_from = self.line[-1]
            self.line = self.line[:-1]
            self._fill(came_from)

    def action_leave(self) -> None:
        """Leaves a search."""
        if self.found is not None:
            self.found = None
            self._fill()

    def action_group(self, name: str | None = None) -> None:
        """Groups the image otherwise, from its top."""
        names = list(GROUPINGS)
        self.grouping = name or names[(names.index(self.grouping) + 1) % len(names)]
        self.line, self.found = (self.view.root(self.grouping),), None
        self._fill()

    def action_sort(self) -> None:
        """Takes the next order; what leaves is one only where there is a plan."""
        orders = [order for order in ORDERS if order != "leaving" or self.view.two]
        self.order = orders[(orders.index(self.order) + 1) % len(orders)]
        row = self._at_cursor()
        self._fill(row[-1] if row is not None else None)

    def action_help(self) -> None:
        """Shows the keys."""
        self.push_screen(Note(Text(HELP)))

    def action_details(self) -> None:
        """Shows all that is known of the row at the cursor."""
        row = self._at_cursor()
        if row is not None:
            self.push_screen(Note(self._said(row[-1])))

    def typed(self, key: str, character: str | None) -> bool:
        """Takes a key of a line that says what to find, which `/` begins; gives whether it was one."""
        if self.typing is None:
            if character != "/":
                return False
            self.typing = ""
        elif key == "enter":
            self.words, self.typing = self.typing.strip(), None
            if self.words:
                self.found = self.view.find(self.view.root(self.grouping), self.words)
                self._fill()
        elif key == "escape":
            self.typing = None
        elif key == "backspace":
            self.typing = self.typing[:-1]
        elif character is not None:
            self.typing += character
        self._keys()
        return True

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Says what is known of the row at the cursor."""
        if 0 <= event.cursor_row < len(self.rows):
            self._mark(event.cursor_row)
            self._describe(self.rows[event.cursor_row][-1])

    def _list(self) -> Listing:
        return self.query_one(Listing)

    def _at_cursor(self) -> Line | None:
        row = self._list().cursor_row
        return self.rows[row] if 0 <= row < len(self.rows) else None

    def _fill(self, at: Node | None = None) -> None:
        """Lists anew, with the cursor at a node."""
        node = self.line[-1]
        if self.found is None:
            lines = [(*self.line, child) for child in self.view.children(node, self.order)]
            whole = max(node.bytes, 1)
        else:
            lines, whole = self.found, max(self.line[0].bytes, 1)
        self.rows = lines[:ROWS]
        table = self._list()
        table.clear(columns=True)
        columns, room = self._columns()
        table.add_column(Text(""), width=len(MARK))
        for title, width in columns.items():
            table.add_column(Text(title.rjust(width)), width=width)
        table.add_column(Text("name"), width=room)
        for line in self.rows:
            cells = self._cells(line, whole, room, bars=columns[""] > GAP)
            table.add_row(Text(""), *(cells[title] for title in columns), cells["name"])
        rest = len(lines) - len(self.rows)
        if rest:
            table.add_row(*[Text("")] * (len(columns) + 1), Text(f"and {rest:,} more: find them with /"))
        self._marked = None
        if at is not None:
            row = next((number for number, line in enumerate(self.rows) if line[-1] is at), 0)
            table.move_cursor(row=row)
        self._mark(table.cursor_row)
        self._head()
        current = self._at_cursor()
        self._describe(node if current is None else current[-1])

    def _columns(self) -> tuple[dict[str, int], int]:
        """The widths of the columns between mark and name, by title (bars have none), and that of the name."""
        two = self.view.two
        columns = {"size": 9, "after": 9, "leaves": 9} if two else {"bytes": 14, "size": 9, "share": 7}
        columns[""] = GAP + BAR + 1
        room = self.size.width - len(MARK) - SCROLL_BAR
        if room - sum(columns.values()) < NAME:
            columns[""] = GAP
        for title in ("after", "size") if two else ("bytes", "share"):
            if room - sum(columns.values()) < NAME:
                del columns[title]
        return columns, max(room - sum(columns.values()), 10)

    def _cells(self, line: Line, whole: int, width: int, *, bars: bool) -> dict[str, Text]:
        """What a row has in each column."""
        node = line[-1]
        name = self.view.place(line) if self.found is not None else self.view.label(node)
        style = "bold" if node.children else ""
        if self.found is None and node.kind in ("owner", "layer", "category"):
            label = Text(name, style)
            label.truncate(width, overflow="ellipsis")
        else:
            label = Text(shorten(name, width), style)
        part = node.bytes - node.after if self.view.two else node.bytes
        numbers = {
            "bytes": f"{node.bytes:,}",
            "size": show_size(node.bytes),
            "share": show_share(node.bytes, whole),
            "after": show_size(node.after),
            "leaves": show_size(part) if part else "-",
        }
        cells = {title: Text(number, justify="right") for title, number in numbers.items()}
        drawn = bar(part, whole, self.console, BAR) if bars else ""
        return {**cells, "": Text(" " * GAP + drawn), "name": label}

    def _mark(self, row: int) -> None:
        """Puts the mark before a row, and takes it from another one."""
        table = self._list()
        if self._marked is not None:
            table.update_cell_at(Coordinate(self._marked, 0), Text(""))
        self._marked = row if 0 <= row < table.row_count else None
        if self._marked is not None:
            table.update_cell_at(Coordinate(self._marked, 0), Text(MARK))

    def _keys(self) -> None:
        """The last line: the keys, or what is typed."""
        if self.typing is None:
            named = dict(KEYS)
            room = self.size.width - 2
            for key in reversed(LAST_TO_GO):
                if sum(len(f"{each} {what}  ") for each, what in named.items()) - 2 > room:
                    del named[key]
            line = Text("  ").join(Text.assemble((key, "bold"), " ", what) for key, what in named.items())
        else:
            line = Text.assemble(("find by name or path: ", "bold"), plain(self.typing), "_")
        line.no_wrap = True
        self.query_one("#keys", Static).update(line)

    def _head(self) -> None:
        tree = self.view.tree
        size = show_size(tree.bytes)
        if tree.after_bytes is not None:
            size += f" -> {show_size(tree.after_bytes)}"
        room = max(self.size.width - 2, 10)
        where = self.view.trail(self.line, room)
        if self.found is not None:
            count = f"{FOUND_LIMIT:,} and more" if len(self.found) > FOUND_LIMIT else f"{len(self.found):,}"
            where = f"{count} found for {plain(self.words)}: Enter goes there, Esc back"
        sorted_by = f"by {self.grouping}, sorted by {self.order}"
        if room < TITLE + len(f"  {size}  {sorted_by}"):
            sorted_by = ""
        left = room - len(f"  {size}  {sorted_by}".rstrip())
        name = plain(tree.image.tag or tree.image.reference, left) if left >= TITLE else ""
        first = "  ".join(filter(None, (name, size, sorted_by)))
        self.query_one("#head", Static).update(Text(f"{first}\n{shorten(where, room)}"))

    def _describe(self, node: Node) -> None:
        self.query_one("#details", Static).update(self._said(node))

    def _said(self, node: Node) -> Text:
        """All that is known of a node."""
        if id(node) not in self._details:
            text = Text()
            for number, (what, said) in enumerate(self.view.details(node)):
                text.append("\n" if number else "")
                text.append(f"{what:<9}", "bold")
                text.append(said)
            self._details[id(node)] = text
        return self._details[id(node)]
