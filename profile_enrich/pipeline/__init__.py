"""Enrichment in pipelines, on the same lookup core as the middleware."""

from ._outcome import Outcome
from .blocking import BlockingEnrichment, enrich_blocking
from .enrich import DeadLetter, Enrichment, Progress, enrich
from .keys import key_of
from .outcomes import outcomes

__all__ = [
    "BlockingEnrichment",
    "DeadLetter",
    "Enrichment",
    "Outcome",
    "Progress",
    "enrich",
    "enrich_blocking",
    "key_of",
    "outcomes",
]
