"""API keys, the key file, field scopes and rate limits."""
