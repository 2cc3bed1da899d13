"""Second cache level in Valkey or Redis, with a backplane that distributes invalidations to all processes."""
