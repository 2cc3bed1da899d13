"""Changes of a local store: builds, refreshes, single records."""
