"""Processing of records: the lookup queue, the outcome of each record, and the merge of profiles."""
