"""Contexts for passes, over images made from a few words: distributions, Debian packages, and small ELF files."""

from __future__ import annotations

import struct
import weakref
from collections.abc import Collection, Iterable
from typing import Any

from deadweight.ledger.ledger import Ledger
from deadweight.passes.base import Context, Options, Pass, Proposal
from deadweight.passes.trees import every_path
from support.images import Member, directory, file, make_tar
from support.layers import image_of

SITE = "usr/local/lib/python3.11/site-packages"
INTERPRETER = (file("usr/local/bin/python3.11", mode=0o755), file("usr/local/lib/python3.11/os.py"))


def context(
    *layers: Iterable[Member],
    run: dict[str, Any] | None = None,
    options: Options | None = None,
    keep_layers: Collection[int] = (),
    architecture: str = "amd64",
) -> Context:
    """A context over an image of these layers; `run` is the configuration's `config`."""
    config: dict[str, object] = {"config": run or {}, "architecture": architecture}
    image = image_of([make_tar(*members) for members in layers], config)
    ledger = Ledger(image)
    weakref.finalize(ledger, image.close)
    return Context(ledger, options or Options(), frozenset(keep_layers))


def proposals(one: Pass, at: Context) -> list[Proposal]:
    """What a pass proposes, told to the context as the planner does; each at most once, and only what may change.

    Directories that leave as one are given path by path.
    """
    found = []
    for proposal in one.propose(at):
        assert at.accept(one, proposal), proposal
        assert proposal.why
        found += sorted((each for _, each in every_path(at.ledger, [(one, proposal)])), key=lambda each: each.path)
    return found


def paths(one: Pass, at: Context) -> list[str]:
    """The paths that a pass proposes, but for directories."""
    nodes = at.ledger.fs.nodes
    return [p.path for p in proposals(one, at) if p.action == "drop" or nodes[p.path].kind != "dir"]


def distribution(
    name: str,
    *files: str | Member,
    requires: Collection[str] = (),
    entry_points: str = "",
    url: str = "",
    site: str = SITE,
    record: bool = True,
) -> list[Member]:
    """An installed distribution: names of files below `site`, or members with whole paths."""
    members = [one if isinstance(one, Member) else file(f"{site}/{one}", b"# a module\n") for one in files]
    info = f"{site}/{name.replace('-', '_')}-1.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    about = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{needs}", "entry_points.txt": entry_points}
    if url:
        about["direct_url.json"] = f'{{"url": "{url}", "dir_info": {{}}}}'
    members += [file(f"{info}/{base}", text.encode()) for base, text in about.items() if text]
    if record:
        up = "../" * len(site.split("/"))
        listed = [m.name.removeprefix(f"{site}/") if m.name.startswith(f"{site}/") else up + m.name for m in members]
        listed.append(f"{info}/RECORD".removeprefix(f"{site}/"))
        members.append(file(f"{info}/RECORD", "".join(f"{each},,\n" for each in listed).encode()))
    return members


class Dpkg:
    """A dpkg database in the making."""

    def __init__(self) -> None:
        self._status: list[str] = []
        self._states: list[str] = []
        self._members: list[Member] = []

    def add(
        self,
        name: str,
        *files: str | Member,
        depends: str = "",
        auto: bool = True,
        priority: str = "optional",
        essential: bool = False,
        listed: bool = True,
        section: str = "misc",
    ) -> None:
        """An installed package with its files: names, or members with contents."""
        members = [one if isinstance(one, Member) else file(one, b"x") for one in files]
        self._members += members
        head = f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\nPriority: {priority}\n"
        head += f"Section: {section}\n" + (f"Depends: {depends}\n" if depends else "")
        self._status.append(head + ("Essential: yes\n" if essential else ""))
        if auto:
            self._states.append(f"Package: {name}\nArchitecture: amd64\nAuto-Installed: 1\n")
        names = {m.name for m in members}
        above = {"/".join(n.split("/")[:i]) for n in names for i in range(1, len(n.split("/")))}
        if listed:
            text = "/.\n" + "".join(f"/{each}\n" for each in sorted(names | above))
            self._members.append(file(f"var/lib/dpkg/info/{name}.list", text.encode()))
        self._members.append(file(f"var/lib/dpkg/info/{name}.md5sums"))

    def members(self) -> list[Member]:
        """All files, with the directories above them."""
        above = {"/".join(m.name.split("/")[:i]) for m in self._members for i in range(1, len(m.name.split("/")))}
        return [
            *(directory(path) for path in sorted(above)),
            *self._members,
            file("var/lib/dpkg/status", "\n".join(self._status).encode()),
            file("var/lib/apt/extended_states", "\n".join(self._states).encode()),
        ]


def elf(
    needed: Collection[str] = (),
    *,
    runpath: str = "",
    interpreter: str = "",
    symbols: int = 0,
    machine: int = 62,
    tail: bytes = b"",
) -> bytes:
    """A 64-bit ELF library: one segment with its dynamic entries, then `symbols` bytes of symbol table."""
    names = [*needed, *([runpath] if runpath else [])]
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    offsets = [1 + sum(len(n) + 1 for n in names[:i]) for i in range(len(names))]
    asked = interpreter.encode() + b"\0" if interpreter else b""
    count = 3 if asked else 2
    at_strings = 64 + 56 * count
    at_asked = at_strings + len(strings)
    at_dynamic = -(-(at_asked + len(asked)) // 16) * 16
    entries = [(1, offset) for offset, _ in zip(offsets, needed, strict=False)]
    entries += [(29, offsets[-1])] if runpath else []
    entries += [(5, at_strings), (10, len(strings)), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *entry) for entry in entries)
    end = at_dynamic + len(dynamic)
    section_names = b"\0.symtab\0.dynstr\0.shstrtab\0"
    at_names = end + symbols
    at_sections = -(-(at_names + len(section_names)) // 8) * 8
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, machine, 1, 0, 64, at_sections, 0, 64, 56, count, 64, 4, 3
    )
    segments = [(1, 5, 0, 0, 0, end, end, 4096), (2, 6, at_dynamic, at_dynamic, 0, len(dynamic), len(dynamic), 8)]
    if asked:
        segments.append((3, 4, at_asked, at_asked, 0, len(asked), len(asked), 1))
    sections = [
        (0,) * 10,
        (1, 2, 0, 0, end, symbols, 0, 0, 8, 24),
        (9, 3, 2, at_strings, at_strings, len(strings), 0, 0, 1, 0),
        (17, 3, 0, 0, at_names, len(section_names), 0, 0, 1, 0),
    ]
    data = header + b"".join(struct.pack("<IIQQQQQQ", *row) for row in segments) + strings + asked
    data += bytes(at_dynamic - len(data)) + dynamic + b"\1" * symbols + section_names
    data += bytes(at_sections - len(data)) + b"".join(struct.pack("<IIQQQQIIQQ", *row) for row in sections)
    return data + tail
