"""The image's configuration: all that makes a container run is as it was."""

from __future__ import annotations

import json
from typing import Any

from deadweight.errors import shown
from deadweight.image.model import Image
from deadweight.plan import Plan, plan_digest

_OURS = "deadweight."
_NOTE = {"created", "created_by", "empty_layer"}


def config_differences(before: Image, after: Image, plan: Plan | None) -> list[str]:
    """What differs that should not, by its key.

    Labels of deadweight's own may be new, and a note at the end of the history; diff-ids are the layers' own matter.
    """
    if before.config_bytes == after.config_bytes:
        return []
    twice = _twice(after.config_bytes)
    if twice is not None:
        return [f"{shown(twice)} is there twice"]  # engines make something else of that than readers of JSON here
    one, two = dict(before.config), dict(after.config)
    found = _history(one.pop("history", None), two.pop("history", None))
    run, slim_run = (_dict(each.pop("config", None)) for each in (one, two))
    labels, slim_labels = (_dict(each.pop("Labels", None)) for each in (run, slim_run))
    roots = [dict(_dict(each.pop("rootfs", None))) for each in (one, two)]
    for root in roots:
        root.pop("diff_ids", None)
    found += _keys(one, two, "") + _keys(run, slim_run, "config.") + _keys(roots[0], roots[1], "rootfs.")
    mine = {key: value for key, value in labels.items() if not key.startswith(_OURS)}
    theirs = {key: value for key, value in slim_labels.items() if not key.startswith(_OURS)}
    return found + _keys(mine, theirs, "config.Labels.") + _wrong_labels(slim_labels, before, plan)


def _dict(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _keys(one: dict[str, Any], two: dict[str, Any], above: str) -> list[str]:
    """The keys whose values differ, with both."""
    return [
        f"{shown(above + key)[1:-1]}: {_brief(one, key)}, then {_brief(two, key)}"
        for key in sorted(one.keys() | two.keys())
        if key not in one or key not in two or _exact(one[key]) != _exact(two[key])
    ]


def _exact(value: Any) -> str:
    """As text, since True and 1 are equal in Python."""
    return json.dumps(value, sort_keys=True)


def _brief(where: dict[str, Any], key: str) -> str:
    return shown(json.dumps(where[key]), 80)[1:-1] if key in where else "nothing"


def _history(before: Any, after: Any) -> list[str]:
    """The history is the original's, and at most one note of deadweight's at its end."""
    one, two = (value if isinstance(value, list) else [] for value in (before, after))
    if _exact(one) != _exact(two[: len(one)]):
        return ["history: the original's entries differ"]
    for note in two[len(one) :][1:] or ():
        return [f"history: a second new entry, {shown(str(note), 80)}"]
    for note in two[len(one) :]:
        by = note.get("created_by") if isinstance(note, dict) else None
        ours = isinstance(by, str) and by.startswith("deadweight ") and note.get("empty_layer") is True
        if not ours or not note.keys() <= _NOTE:
            return [f"history: a new entry, {shown(str(note), 80)}"]
    return []


def _wrong_labels(labels: dict[str, Any], before: Image, plan: Plan | None) -> list[str]:
    """Labels by which the image says what it was made from and by which plan, and which are not so."""
    found = []
    if labels.get(f"{_OURS}source", before.config_digest) != before.config_digest:
        found.append(f"config.Labels.{_OURS}source: {shown(str(labels[f'{_OURS}source']), 80)} is another image")
    if plan is not None and f"{_OURS}plan" in labels and not edited_by_hand(plan):
        label = labels[f"{_OURS}plan"]
        if label != plan_digest(plan):
            found.append(
                f"config.Labels.{_OURS}plan: {shown(str(label), 80)} is another plan, or this one before it was edited"
            )
    return found


def edited_by_hand(plan: Plan) -> bool:
    """Whether a plan's totals are no longer those of its cuts: what is applied then is worked out anew."""
    saved = sum(cut.before_bytes - cut.after_bytes for cut in plan.cuts)
    return plan.before_bytes - saved != plan.predicted_bytes


def _twice(data: bytes) -> str | None:
    """A key that an object of a JSON document has twice, or once more in other letters, which engines take for it."""
    found: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: set[str] = set()
        for key, _ in items:
            if key in seen:
                found.append(key)
            seen.add(key)
        return dict(items)

    json.loads(data, object_pairs_hook=pairs)
    return found[0] if found else None
