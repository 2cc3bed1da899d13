"""HTTP messages, entity tags and compression."""
