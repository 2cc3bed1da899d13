"""profile_enrich."""
