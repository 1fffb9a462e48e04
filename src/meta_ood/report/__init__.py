"""The pure half of the report stage: results in, texts and one HTML page out."""

from meta_ood.report.experiments import read_experiments
from meta_ood.report.page import html_page
from meta_ood.report.provenance import provenance
from meta_ood.report.published import match_published, read_published
from meta_ood.report.published_tables import published_markdown, published_section, published_text
from meta_ood.report.results import Cell, Results, read_results
from meta_ood.report.tables import csv_table, markdown_table, text_table
from meta_ood.report.verdict import verdict

__all__ = [
    "Cell",
    "Results",
    "csv_table",
    "html_page",
    "markdown_table",
    "match_published",
    "provenance",
    "published_markdown",
    "published_section",
    "published_text",
    "read_experiments",
    "read_published",
    "read_results",
    "text_table",
    "verdict",
]
