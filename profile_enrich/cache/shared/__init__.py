"""A second cache level in Valkey or Redis, with a backplane that carries invalidations to every process."""
