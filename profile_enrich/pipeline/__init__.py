"""Pipelines: enrich records, files and tables with profiles, through the same client as the middleware."""

from .blocking import BlockingEnrichment, enrich_blocking
from .enrich import DeadLetter, Enrichment, Progress, enrich
from .keys import key_of
from .options import EnrichOptions
from .outcome_stream import outcomes
from .records.outcome import Outcome

__all__ = [
    "BlockingEnrichment",
    "DeadLetter",
    "EnrichOptions",
    "Enrichment",
    "Outcome",
    "Progress",
    "enrich",
    "enrich_blocking",
    "key_of",
    "outcomes",
]
