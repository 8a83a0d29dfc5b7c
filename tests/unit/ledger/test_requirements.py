"""Requirement graphs: chains, extras, and what leaves together, against an oracle that tries every subset."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st
from packaging.markers import default_environment

from deadweight.ledger.python import Distribution
from deadweight.ledger.requirements import Graph, only_needed_by, requirement_graph, why

ENV = {str(k): str(v) for k, v in default_environment().items()} | {"python_version": "3.11", "sys_platform": "linux"}


def dist(
    name: str, *requires: str, requested: bool = False, url: str | None = None, installer: str = "pip"
) -> Distribution:
    return Distribution(
        name=name.lower(),
        display=name,
        version="1",
        site="s",
        info=f"s/{name}",
        requires=requires,
        requested=requested,
        direct_url=url,
        installer=installer,
    )


def graph(*dists: Distribution) -> Graph:
    return requirement_graph(dists, ENV)


SERVICE = (
    dist("TruthGraph", "fastapi", 'sentence-transformers; extra == "ml"', 'pytest; extra == "dev"', url="file:///app"),
    dist("fastapi", "uvicorn[standard]", 'old; python_version < "3"'),
    dist(
        "uvicorn",
        'uvloop; extra == "standard" and sys_platform == "linux"',
        'win; extra == "standard" and os_name == "nt"',
    ),
    dist("uvloop"),
    dist("sentence-transformers", "scikit-learn"),
    dist("scikit-learn", "scipy", "packaging"),
    dist("scipy", 'missing; extra == "doc"', 'pytest; extra == "doc"'),
    dist("pytest", "pluggy", "packaging", "iniconfig"),
    dist("pluggy", 'pytest; extra == "testing"'),
    dist("packaging"),
    dist("iniconfig"),
    dist("old"),
)


def test_chains_are_shown_with_the_extras_that_brought_them() -> None:
    chains = why(graph(*SERVICE))
    assert chains["truthgraph"] == "requested"
    assert chains["scipy"] == "TruthGraph[ml] -> sentence-transformers -> scikit-learn -> scipy"
    assert chains["uvloop"] == "TruthGraph -> fastapi -> uvicorn[standard] -> uvloop"
    assert chains["pluggy"] == "TruthGraph[dev] -> pytest -> pluggy"
    # Shorter by way of pytest, but it would be there without.
    assert chains["packaging"] == "TruthGraph[ml] -> sentence-transformers -> scikit-learn -> packaging"
    assert chains["old"] == "nothing installed requires it"


def test_what_leaves_with_pytest() -> None:
    removal = only_needed_by(graph(*SERVICE), {"pytest", "absent"})
    assert removal.leaving == {
        "iniconfig": "only needed by pytest",
        "pluggy": "only needed by pytest",
        "pytest": "named",
    }
    assert removal.refused == {}


def test_names_that_are_needed_or_kept_are_refused() -> None:
    removal = only_needed_by(graph(*SERVICE), {"scipy", "uvloop", "pytest"}, keep={"pytest"})
    assert removal.leaving == {}
    assert removal.refused == {
        "pytest": "it is to be kept",
        "scipy": "required by scikit-learn",
        "uvloop": "required by uvicorn[standard]",
    }


def test_an_inferred_extra_holds_what_was_not_named() -> None:
    dists = (dist("app", 'shared; extra == "x"', requested=True), dist("tool", "shared"), dist("shared"))
    assert set(only_needed_by(graph(*dists), {"tool"}).leaving) == {"tool"}
    assert set(only_needed_by(graph(*dists), {"tool", "shared"}).leaving) == {"tool", "shared"}


def test_requested_counts_but_not_from_uv() -> None:
    both = (dist("tool", "b"), dist("b", requested=True), dist("app"))
    assert set(only_needed_by(graph(*both), {"tool"}).leaving) == {"tool"}
    uv = (dist("tool", "b"), dist("b", requested=True, installer="uv"))
    assert set(only_needed_by(graph(*uv), {"tool"}).leaving) == {"tool", "b"}
    assert why(graph(*uv))["b"] == "tool -> b"


def test_circles_get_a_root() -> None:
    chains = why(graph(dist("pytest", "pluggy"), dist("pluggy", 'pytest; extra == "testing"')))
    assert chains["pytest"] == "nothing outside its own circle of requirements requires it"
    assert chains["pluggy"] == "pytest -> pluggy"
    assert why(graph(dist("b", "a"), dist("a", "b"), dist("c", "c")))["b"] == "a -> b"


def test_extras_that_name_extras_of_their_own_distribution() -> None:
    found = graph(
        dist("p", 'p[x]; extra == "all"', 'a; extra == "x"', 'zz; extra == "y"', 'p[y]; extra == "none"'), dist("a")
    )
    assert [(e.target, e.kind, e.extra) for e in found.edges["p"]] == [("a", "inferred", "x")]
    asked = graph(dist("q", "p[ALL]"), dist("p", 'p[x]; extra == "all"', 'a; extra == "x"'), dist("a"))
    assert [(e.target, e.kind, e.extra) for e in asked.edges["p"]] == [("a", "requested", "x")]


def test_damaged_requirements_leave_a_note() -> None:
    found = graph(dist("a", "=", "c; nonsense", "", "b @ file:///x"), dist("b"), dist("c"))
    assert {e.target for e in found.edges["a"]} == {"b"}
    assert len(found.notes) == 3


def test_extras_in_any_spelling() -> None:
    found = graph(
        dist("A", "B[Some_Extra]"),
        dist("B", "c; 'some-extra' == extra", 'd; (extra == "SOME.extra") and python_version > "3"'),
        dist("c"),
        dist("d"),
    )
    assert [(e.target, e.kind) for e in found.edges["b"]] == [("c", "requested"), ("d", "requested")]


NAMES = "abcdef"


@st.composite
def installed(draw: st.DrawFn) -> list[Distribution]:
    names = NAMES[: draw(st.integers(1, len(NAMES)))]
    extra = st.sampled_from(["", "", "", "x", "y"])
    dists = []
    for name in names:
        requires = []
        for _ in range(draw(st.integers(0, 3))):
            target, asked, own = draw(st.sampled_from(NAMES)), draw(extra), draw(extra)
            requires.append(target + (f"[{asked}]" if asked else "") + (f'; extra == "{own}"' if own else ""))
        dists.append(dist(name, *requires, requested=draw(st.integers(0, 5)) == 0))
    return dists


def edges_by_hand(dists: list[Distribution]) -> set[tuple[str, str, str]]:
    """(source, target, kind), worked out from the strings in the plainest way."""
    names = {d.name for d in dists}
    lines = []
    for d in dists:
        for text in d.requires:
            head, _, marker = text.partition(";")
            own = marker.partition('"')[2].rstrip('"')
            target, _, asked = head.strip().rstrip("]").partition("[")
            lines.append((d.name, own, target, asked))
    active = {(name, "") for name in names}
    while True:
        more = {(t, asked) for (s, own, t, asked) in lines if asked and t in names and (s, own) in active} - active
        if not more:
            break
        active |= more

    def complete(name: str, extra: str) -> bool:
        closure = {extra}
        for _ in range(3):
            closure |= {asked for (s, own, t, asked) in lines if s == t == name and own in closure and asked}
        needs = {t for (s, own, t, _) in lines if s == name and own in closure and t != name}
        return bool(needs) and needs <= names

    found = set()
    for source, own, target, _ in lines:
        if target in names and target != source:
            if not own:
                found.add((source, target, "hard"))
            elif (source, own) in active:
                found.add((source, target, "requested"))
            elif complete(source, own):
                found.add((source, target, "inferred"))
    rank = ["hard", "requested", "inferred"]
    best: dict[tuple[str, str], str] = {}
    for source, target, kind in sorted(found, key=lambda e: rank.index(e[2])):
        best.setdefault((source, target), kind)
    return {(*pair, kind) for pair, kind in best.items()}


@given(installed(), st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES), max_size=2))
def test_against_an_oracle_that_tries_every_subset(dists: list[Distribution], names: set[str], keep: set[str]) -> None:
    found = requirement_graph(dists, ENV)
    edges = edges_by_hand(dists)
    assert {(e.source, e.target, e.kind) for several in found.edges.values() for e in several} == edges
    here = {d.name: d for d in dists}
    wanted = names & here.keys()
    candidates = set(wanted)
    for _ in here:
        candidates |= {t for (s, t, kind) in edges if s in candidates and kind != "inferred"}
    candidates = {n for n in candidates - keep if n in wanted or not here[n].requested}

    def holds(leaving: set[str]) -> bool:
        return not any(
            s not in leaving and t in leaving and (kind != "inferred" or t not in wanted) for (s, t, kind) in edges
        )

    best: set[str] = set()
    for size in range(len(candidates) + 1):
        for subset in combinations(sorted(candidates), size):
            if holds(set(subset)):
                best |= set(subset)
    removal = only_needed_by(found, names, keep)
    assert set(removal.leaving) == best
    assert set(removal.refused) == wanted - best
    chains = why(found)
    assert set(chains) == set(here)
    for name, chain in chains.items():
        assert (" -> " not in chain) == (name in found.roots)


def test_many_circles_take_no_time() -> None:
    dists = [dist(f"p{i}", f"p{i ^ 1}", f"p{(i * 7) % 4000}") for i in range(4000)]
    found = requirement_graph(dists, ENV)
    assert len(why(found)) == 4000
    only_needed_by(found, {"p0", "p1"})
