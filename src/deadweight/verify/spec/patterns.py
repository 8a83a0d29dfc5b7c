"""The regular expressions of a spec: Python's, searched for anywhere in a text that is cut where it gets long."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache

SEARCHED = 8_000_000
"""Bytes of a file or an output that are searched; what lies behind is not looked at, which is said."""
PATTERN_LIMIT = 10_000


@lru_cache(maxsize=1000)
def compiled(pattern: str) -> re.Pattern[str]:
    """A spec's regular expression. Raises ValueError, which says why it is none."""
    if len(pattern) > PATTERN_LIMIT:
        raise ValueError(f"a regular expression of {len(pattern):,} characters; at most {PATTERN_LIMIT:,} are taken")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sets that a later Python may read otherwise
            return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"no regular expression: {error}") from None


def searched(content: bytes) -> str:
    """What of a content is searched, as text: what is no UTF-8 in it becomes U+FFFD."""
    return content[:SEARCHED].decode("utf-8", "replace")
