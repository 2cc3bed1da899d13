"""The ASGI middleware and everything between a request and a lookup: identity, consent, dependencies, cache headers."""
