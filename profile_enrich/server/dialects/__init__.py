"""The vendors' dialects: Census and Amperity."""
