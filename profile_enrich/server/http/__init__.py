"""HTTP messages, entity tags and compression of the server."""
