"""Vectors and judgements of a few sentences, as arrays that both images have to compute bit for bit."""

import os
from pathlib import Path

import numpy as np
from truthgraph import logs
from truthgraph.inference import choose
from truthgraph.inference.interface import LABELS, Pair
from truthgraph.settings import Settings

SENTENCES = [
    "The moon is made of cheese.",
    "The moon is made of rock.",
    "Water boils at 100 degrees.",
    "A service is pulled at every scale-up, stored in every registry, and scanned for every CVE.",
]

settings = Settings(device="cpu", log_level="error")
logs.configure(settings)  # a log has the time in it
inference = choose(settings)
embeddings = inference.embed(SENTENCES)
judgements = inference.judge([Pair(premise, SENTENCES[0]) for premise in SENTENCES])
out = Path(os.environ["DEADWEIGHT_OUT"])
np.save(out / "vectors.npy", np.stack(embeddings.vectors))
np.save(out / "judgements.npy", np.array([[getattr(row, label) for label in LABELS] for row in judgements.rows]))
print(embeddings.model, judgements.model, sep="\n")
