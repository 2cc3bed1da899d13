"""The vendors' dialects of the Profile API: Census and Amperity."""
