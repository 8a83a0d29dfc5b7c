"""Whether the slim image behaves like the original: a proof without running anything, then probes in both."""

from __future__ import annotations

import time
from collections.abc import Callable

from deadweight.image.model import Image
from deadweight.ledger.ledger import Ledger
from deadweight.verify.defaults import default_probes
from deadweight.verify.model import Verdict, verdict_of
from deadweight.verify.probes import judge, observe
from deadweight.verify.probes.kinds import kind_of
from deadweight.verify.sandbox import Limits
from deadweight.verify.sandbox.bubblewrap import Bubblewrap
from deadweight.verify.side import Side
from deadweight.verify.spec import Spec
from deadweight.verify.static import compare_views
from deadweight.verify.trees import trees

Progress = Callable[[str, int, int], None]


def verify(before: Ledger, after: Ledger, spec: Spec, progress: Progress | None = None) -> Verdict:
    """Compares two images."""
    start = time.monotonic()
    say = progress or (lambda doing, done, total: None)
    limits = Limits(spec.limits.timeout)
    probes = [*(default_probes(before, after, spec) if spec.defaults else ()), *spec.probe]
    results = []
    comparison = compare_views(before.fs, after.fs)
    with trees() as unpack:
        say("unpacking the original", 0, 0)
        root, notes = unpack("before", before.fs, {})
        say("unpacking the slim image", 0, 0)
        shared = {key: str(root / path) for key, path in comparison.equal.items()}
        slim_root, more = unpack("after", after.fs, shared)
        one = Side("before", before, Bubblewrap(before.image, root), limits, spec.app)
        two = Side("after", after, Bubblewrap(after.image, slim_root), limits, spec.app)
        for number, probe in enumerate(probes):
            say(f"probing: {probe.name}", number, len(probes))
            kind = kind_of(probe)
            results.append(judge(kind, probe, probe.name, observe(kind, probe, one), observe(kind, probe, two)))
        notes = list(dict.fromkeys([*notes, *more, *one.sandbox.notes, *two.sandbox.notes]))
    return verdict_of(results, "bubblewrap", time.monotonic() - start, notes)


def image_ledger(image: Image) -> Ledger:
    """The ledger of an image."""
    return Ledger(image)
