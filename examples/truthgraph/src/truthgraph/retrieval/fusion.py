"""One ranking out of several."""

from collections.abc import Sequence

K = 60
"""How little the first places weigh more than the next: the constant of Cormack, Clarke and Büttcher (2009)."""


def reciprocal_rank(rankings: Sequence[Sequence[int]]) -> list[tuple[int, float]]:
    """Items by the sum of 1 / (K + rank) over the rankings that have them, the best first; equals by their number."""
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + 1 / (K + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
