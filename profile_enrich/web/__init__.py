"""Web integration: the ASGI middleware, identity and consent functions, dependencies, cache headers."""
