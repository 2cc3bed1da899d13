"""Inputs of a collection: CSV, JSONL, Parquet, SQL queries, standard input and iterables."""
