"""What a collection is built from: CSV, JSONL, Parquet, SQL queries, standard input and iterables."""
