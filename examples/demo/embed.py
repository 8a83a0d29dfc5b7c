"""Vectors of a few sentences, as an array that both images have to compute bit for bit."""

import os
from pathlib import Path

import numpy as np
from factcheck_demo import similarity

SENTENCES = [
    "The moon is made of cheese.",
    "Water boils at 100 degrees.",
    "A service is pulled at every scale-up, stored in every registry, and scanned for every CVE.",
]

vectors = similarity.embed(SENTENCES)
np.save(Path(os.environ["DEADWEIGHT_OUT"]) / "vectors.npy", vectors)
print(vectors.shape, vectors.dtype)
