"""Records between input and output: the lookup queue, the outcome of each record, and how a profile is merged in."""
