"""A soak test: some minutes of a shop with several hundred visitors, over a vendor that fails in every way.

`python -m tests.soak --minutes 3` runs it. All actions are random, from a seed that it prints, and each response is
compared with the expected state at that moment.
"""
