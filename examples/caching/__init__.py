"""Personal pages behind an HTTP cache, in the three ways that work."""
