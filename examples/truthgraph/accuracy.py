"""What the service makes of claims and evidence, as arrays: vectors, judgements, and verdicts by its own code.

DEADWEIGHT_INPUT names a file of JSON: pairs of a claim and a piece of evidence. Each pair is judged on its own.
"""

import json
import os
from pathlib import Path

import numpy as np
from truthgraph import logs
from truthgraph.inference import choose
from truthgraph.inference.interface import LABELS, Pair
from truthgraph.settings import Settings
from truthgraph.verdicts import aggregate

VERDICTS = ("supported", "refuted", "conflicting", "not_enough_evidence")

pairs = json.loads(Path(os.environ["DEADWEIGHT_INPUT"]).read_text("utf-8"))
settings = Settings(device="cpu", log_level="error")
logs.configure(settings)  # a log has the time in it
inference = choose(settings)
claims = np.stack(inference.embed([claim for claim, _ in pairs]).vectors)
evidence = np.stack(inference.embed([text for _, text in pairs]).vectors)
judgements = inference.judge([Pair(premise=text, hypothesis=claim) for claim, text in pairs]).rows
relevance = (claims * evidence).sum(axis=1).clip(0, 1)
outcomes = [aggregate([found]) for found in zip(relevance.tolist(), judgements, strict=True)]
out = Path(os.environ["DEADWEIGHT_OUT"])
np.save(out / "vectors.npy", np.concatenate([claims, evidence]))
np.save(out / "probabilities.npy", np.array([getattr(row, label) for row in judgements for label in LABELS]))
np.save(out / "judgements.npy", np.array([LABELS.index(row.label) for row in judgements]))
np.save(out / "verdicts.npy", np.array([VERDICTS.index(outcome.label) for outcome in outcomes]))
