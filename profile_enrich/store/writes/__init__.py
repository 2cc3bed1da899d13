"""Everything that changes a store: builds, refreshes, single records."""
