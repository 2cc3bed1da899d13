"""Enrichment in pipelines, on the same lookup core as the middleware."""
