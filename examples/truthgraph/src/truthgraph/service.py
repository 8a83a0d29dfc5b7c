"""The parts of one running service."""

from dataclasses import dataclass

from truthgraph.inference import choose
from truthgraph.inference.interface import Inference
from truthgraph.settings import Settings
from truthgraph.storage.database import Database


@dataclass(frozen=True)
class Service:
    """Settings, database and inference."""

    settings: Settings
    database: Database
    inference: Inference

    @classmethod
    def of(cls, settings: Settings, inference: Inference | None = None) -> "Service":
        """What the settings ask for. Nothing is connected to or loaded yet."""
        return cls(settings, Database(settings), inference or choose(settings))
