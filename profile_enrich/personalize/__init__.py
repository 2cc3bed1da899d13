"""Choose what a person sees: audiences, variants and stable percentage splits."""

from .audiences import Audience, gt, gte, lt, lte, one_of
from .decisions import Decision, DecisionReason, Decisions, Exposure, choose, counts
from .experiments import Experiment

__all__ = [
    "Audience",
    "Decision",
    "DecisionReason",
    "Decisions",
    "Experiment",
    "Exposure",
    "choose",
    "counts",
    "gt",
    "gte",
    "lt",
    "lte",
    "one_of",
]
