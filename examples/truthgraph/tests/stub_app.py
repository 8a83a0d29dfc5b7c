"""The service with the tests' inference, for a second process: the remote of remote inference."""

import time
from collections.abc import Sequence
from pathlib import Path

from stub import StubInference
from truthgraph.inference.interface import Embeddings
from truthgraph.main import create_app


class SlowInference(StubInference):
    """Takes as many seconds for each question as the file `seconds` in its working directory says, if there is one."""

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """Hashed words, at last."""
        seconds = Path("seconds")
        if seconds.exists():
            time.sleep(float(seconds.read_text()))
        return super().embed(texts)


app = create_app(inference=SlowInference())
