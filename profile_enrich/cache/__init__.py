"""The in-process cache: bounded storage, fresh and stale expiry, a sweeper of expired entries."""
