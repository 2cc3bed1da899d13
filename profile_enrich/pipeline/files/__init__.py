"""Enrichment of files: CSV, JSONL and Parquet, with checkpoints that a later run can resume."""

from .dry_run import FileSurvey, survey_file
from .file_enrichment import enrich_file
from .file_report import FileProgress, FileReport

__all__ = ["FileProgress", "FileReport", "FileSurvey", "enrich_file", "survey_file"]
