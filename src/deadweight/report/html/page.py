"""The page: what every report's file has around its sections, in one file that fetches nothing.

Its policy lets nothing run or apply but the scripts and the style that are in it, by their digests, so that even a hole
in what makes names harmless would be none.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Sequence
from importlib.metadata import version
from string import Template

import msgspec

from deadweight.report.html.markup import Child, Markup, joined, tag
from deadweight.report.html.sections import asset
from deadweight.report.tree_model import Tree

_SCRIPTS = ("data.js", "treemap.js", "tables.js", "look.js", "contents.js", "app.js")

_SIZES = "Sizes are those of the layers' uncompressed tars, but where it says stored; 1 GB is 10⁹ bytes."


def page(title: str, header: Sequence[Child], main: Sequence[Child], tree: Tree) -> bytes:
    """A whole document."""
    style = asset("style.css")
    vendor = f"/*\n{asset('d3-hierarchy.LICENSE')}*/\n{asset('d3-hierarchy.min.js')}"
    script = f'"use strict";\n(() => {{\n{"".join(map(asset, _SCRIPTS))}}})();\n'
    scripts = " ".join(map(_digest, (vendor, script)))
    policy = (
        f"default-src 'none'; script-src {scripts}; style-src {_digest(style)}; base-uri 'none'; form-action 'none'"
    )
    brand = tag(
        "div",
        tag("strong", "deadweight"),
        tag("span", title),
        tag("span", class_="spacer"),
        tag("button", id="theme", type="button", hidden=True),
        class_="brand",
    )
    text = Template(asset("page.html")).substitute(
        policy=policy,
        title=f"deadweight: {joined([title])}",
        style=style,
        header=tag("header", brand, header),
        main=joined(main),
        footer=f"deadweight {version('deadweight')}. {_SIZES}",
        tree=_packed(tree),
        vendor=vendor,
        script=script,
    )
    return text.encode()


def _packed(tree: Tree) -> Markup:
    """The tree as the page's data.js unpacks it: JSON, deflated (RFC 1950), as base64."""
    return Markup(base64.b64encode(zlib.compress(msgspec.json.encode(tree))).decode())


def _digest(source: str) -> str:
    """A source as a Content-Security-Policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
