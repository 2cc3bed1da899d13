"""Authentication of the server: Authentication of the server: API keys, the key file, field scopes and rate limits."""
