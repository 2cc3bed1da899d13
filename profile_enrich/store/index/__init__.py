"""Posting lists: which records have a value, for exact-match filters."""
