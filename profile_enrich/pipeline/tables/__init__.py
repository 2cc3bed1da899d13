"""Columnar enrichment: distinct keys of a table, each looked up once, joined back as columns."""
