"""Domain-free helpers: validation, deadlines, fork handling, frozen JSON, optional imports."""
