"""Models in this process. The heavy libraries are imported when the first question comes."""

import threading
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, TypeVar

import numpy as np
import structlog

from truthgraph.errors import InferenceUnavailable
from truthgraph.inference import head
from truthgraph.inference.interface import LABELS, Embeddings, Judgement, Judgements, Mode, Pair
from truthgraph.settings import DEFAULT_EMBEDDING_MODEL, Settings

log = structlog.get_logger()
T = TypeVar("T")


class LocalInference:
    """A sentence-transformers model, and a cross-encoder or the bundled head.

    One question is worked on at a time: tokenizers must not be shared by threads, and torch uses all cores anyway.
    """

    mode: Mode = "local"
    reason = None
    circuit = None

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._embedder: Any = None
        self._cross_encoder: CrossEncoder | None = None

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """A unit vector for each text, the same whenever the same texts are asked for together."""
        if not texts:
            return Embeddings(self._settings.embedding_model, [])
        with self._lock:
            if self._embedder is None:
                self._embedder = self._load(self._settings.embedding_model, self._load_embedder)
            rows = self._embedder.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return Embeddings(self._settings.embedding_model, list(np.asarray(rows, dtype=np.float32)))

    def judge(self, pairs: Sequence[Pair]) -> Judgements:
        """A judgement for each pair, by the cross-encoder that is set or else by the head."""
        name = self._settings.nli_model
        if name is None:
            return self._judge_by_head(pairs)
        with self._lock:
            if self._cross_encoder is None:
                self._cross_encoder = self._load(name, lambda: CrossEncoder(name, self._device()))
            rows = self._cross_encoder.judge(pairs)
        return Judgements(f"NLI cross-encoder {name}", rows)

    def close(self) -> None:
        """Nothing to let go of: models end with the process."""

    def _judge_by_head(self, pairs: Sequence[Pair]) -> Judgements:
        bundled = head.bundled()
        if self._settings.embedding_model != bundled.embedding_model:
            raise InferenceUnavailable(
                f"the bundled head judges embeddings of {bundled.embedding_model}, not of "
                f"{self._settings.embedding_model}: name an NLI model by TRUTHGRAPH_NLI_MODEL"
            )
        vectors = self.embed([text for pair in pairs for text in (pair.premise, pair.hypothesis)]).vectors
        return Judgements(bundled.description, bundled.judge(vectors[0::2], vectors[1::2]))

    def _load(self, name: str, load: Callable[[], T]) -> T:
        log.info("loading model", model=name)
        try:
            return load()
        # Whatever a library of the size of transformers raises, the answer is the same: this model cannot be had.
        except Exception as error:
            log.exception("model cannot be loaded", model=name)
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise InferenceUnavailable(f"the model {name} cannot be loaded: {reason}") from error

    def _load_embedder(self) -> Any:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415

        name = self._settings.embedding_model
        if name == DEFAULT_EMBEDDING_MODEL:
            name = str(files(DEFAULT_EMBEDDING_MODEL.replace("-", "_")) / "model")
        return SentenceTransformer(name, device=self._device()).eval()

    def _device(self) -> str:
        import torch  # noqa: PLC0415

        if self._settings.device != "auto":
            return self._settings.device
        return "cuda" if torch.cuda.is_available() else "cpu"


class CrossEncoder:
    """A sequence classifier of transformers with the three answers of natural-language inference."""

    def __init__(self, name: str, device: str) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer  # noqa: PLC0415

        self._device = device
        self._tokenizer = AutoTokenizer.from_pretrained(name)
        self._model = AutoModelForSequenceClassification.from_pretrained(name).to(device).eval()
        self._columns = columns(self._model.config.id2label)

    def judge(self, pairs: Sequence[Pair]) -> list[Judgement]:
        """A judgement for each pair."""
        import torch  # noqa: PLC0415

        if not pairs:
            return []
        batch = self._tokenizer(
            [pair.premise for pair in pairs],
            [pair.hypothesis for pair in pairs],
            padding=True,
            truncation=True,
            return_tensors="pt",
        ).to(self._device)
        with torch.inference_mode():
            rows = torch.softmax(self._model(**batch).logits.float(), dim=-1).cpu().tolist()
        return [Judgement(*(row[column] for column in self._columns)) for row in rows]


def columns(labels: dict[int, str]) -> list[int]:
    """Where a model has entailment, neutral and contradiction among its own labels."""
    found = {label.lower(): number for number, label in labels.items()}
    if set(found) != set(LABELS):
        raise ValueError(f"it is no NLI model: its labels are {', '.join(labels.values())}")
    return [found[label] for label in LABELS]
