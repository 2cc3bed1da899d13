"""A soak test: some minutes of a shop with several hundred visitors, over a vendor that fails in every way.

`python -m tests.soak --minutes 3` runs it. Nothing in it waits for a certain thing to happen: it plays at random, from
a seed that it prints, and compares everything that comes back with what is true at that moment.
"""
