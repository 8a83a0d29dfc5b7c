"""YAML read for known fields: nothing is constructed, errors have lines, and text stays as it is written.

`value: 1.10` is the text `1.10` where a text is wanted and no number, as Go's yaml package has it. Aliases are not
copied, merge keys (`<<`) are followed, and how much is read in all has a limit.
"""

from __future__ import annotations

import re

import yaml

from deadweight.errors import BadInputError, shown

NODE_LIMIT = 200_000
_TAG = "tag:yaml.org,2002:"
_SCALARS = frozenset(_TAG + word for word in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value"))
_MERGES = 20
_TRUE = frozenset({"yes", "true", "on"})


class Place:
    """A node of the document, and where it is."""

    def __init__(self, document: Document, node: yaml.Node, keys: str, key: yaml.Node | None = None) -> None:
        self.document, self.node, self.keys = document, node, keys
        self.line = (key or node).start_mark.line + 1
        document.count(self)

    def wrong(self, what: str) -> BadInputError:
        """An error about this place, to be raised: file, line and key in front."""
        line = f":{self.line}" if self.document.lines else ""
        return BadInputError(f"{self.document.where}{line}: {self.keys + ': ' if self.keys else ''}{what}")

    @property
    def empty(self) -> bool:
        """Whether nothing is written here, or null."""
        return self.node.tag == _TAG + "null"

    def text(self) -> str:
        """A scalar as it is written."""
        if not isinstance(self.node, yaml.ScalarNode) or self.node.tag not in _SCALARS:
            raise self.wrong(f"expected a string, got {self._got()}")
        return "" if self.empty else str(self.node.value)

    def whole(self) -> int:
        """A whole number."""
        if self.node.tag != _TAG + "int" or not re.fullmatch(r"[+-]?(0|[1-9][0-9]{0,17})", self.node.value):
            raise self.wrong(f"expected a whole number, got {self._got()}")
        return int(self.node.value)

    def flag(self) -> bool:
        """True or false."""
        if self.node.tag != _TAG + "bool":
            raise self.wrong(f"expected true or false, got {self._got()}")
        return self.node.value.lower() in _TRUE

    def items(self) -> list[Place]:
        """The elements of a list; none where nothing is written."""
        if self.empty:
            return []
        if not isinstance(self.node, yaml.SequenceNode):
            raise self.wrong(f"expected a list, got {self._got()}")
        return [Place(self.document, node, f"{self.keys}[{number}]") for number, node in enumerate(self.node.value)]

    def texts(self) -> list[str]:
        """A list of strings."""
        return [item.text() for item in self.items()]

    def table(self, known: frozenset[str]) -> dict[str, Place]:
        """The fields that are written and not null. Unknown ones are refused, and those that are there twice."""
        if self.empty:
            return {}
        found = self._fields(self.node)
        for key, place in found.items():
            if key not in known:
                raise place.wrong(f"there is no such field; there are {', '.join(sorted(known))}")
        return {key: place for key, place in found.items() if not place.empty}

    def _fields(self, node: yaml.Node, merges: int = 0) -> dict[str, Place]:
        if merges > _MERGES:
            raise self.wrong(f"more than {_MERGES} merge keys, one within the other")
        if not isinstance(node, yaml.MappingNode):
            raise self.wrong(f"expected a mapping, got {self._got()}")
        found: dict[str, Place] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            if key.tag == _TAG + "merge":
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            name = Place(self.document, key, self.keys).text()
            place = Place(self.document, value, f"{self.keys}.{_word(name)}" if self.keys else _word(name), key)
            if name in found:
                raise place.wrong("is written twice")
            found[name] = place
        for other in merged:
            for name, place in Place(self.document, other, self.keys)._fields(other, merges + 1).items():
                found.setdefault(name, place)
        return found

    def _got(self) -> str:
        if isinstance(self.node, yaml.ScalarNode):
            return shown(self.node.value, 60)
        return "a list" if isinstance(self.node, yaml.SequenceNode) else "a mapping"


class Document:
    """A file that is read."""

    def __init__(self, where: str, lines: bool) -> None:
        self.where, self.lines = where, lines
        self._left = NODE_LIMIT

    def count(self, place: Place) -> None:
        """Counts what is read: aliases within aliases are much in little."""
        self._left -= 1
        if self._left < 0:
            raise place.wrong(f"more than {NODE_LIMIT:,} values, aliases counted each time")


def read_yaml(text: str, where: str, lines: bool = True) -> Place:
    """The root of a document. Raises BadInputError."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark is not None and lines else ""
        raise BadInputError(f"{where}{line}: {shown(error.problem or error.context or 'no YAML')[1:-1]}") from None
    except yaml.YAMLError as error:
        raise BadInputError(f"{where}: no YAML: {shown(str(error).splitlines()[0])[1:-1]}") from None
    except RecursionError:
        raise BadInputError(f"{where}: nested too deep") from None
    if node is None:
        raise BadInputError(f"{where}: there is nothing in it")
    return Place(Document(where, lines), node, "")


def _word(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", name) else shown(name, 60)
