"""Helpers without a domain of their own: validation, deadlines, fork handling, frozen JSON, optional imports."""
