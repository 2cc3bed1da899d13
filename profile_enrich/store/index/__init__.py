"""Inverted index: the records of each value, for exact-match filters."""
