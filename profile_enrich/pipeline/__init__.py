"""Enrichment in pipelines, on the same lookup core as the middleware."""

from ._outcome import Outcome
from .keys import key_of
from .outcomes import outcomes

__all__ = ["Outcome", "key_of", "outcomes"]
