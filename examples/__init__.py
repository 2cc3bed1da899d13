"""Programs that use `profile_enrich`, to run and to copy from."""
