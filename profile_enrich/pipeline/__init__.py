"""Enrichment in pipelines, on the same lookup core as the middleware."""

from .blocking import BlockingEnrichment, enrich_blocking
from .enrich import DeadLetter, Enrichment, Progress, enrich
from .keys import key_of
from .outcome_stream import outcomes
from .records.outcome import Outcome

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
