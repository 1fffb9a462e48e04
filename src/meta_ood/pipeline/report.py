"""report: all evaluations as one page, and as a table in CSV, Markdown and text."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from meta_ood import report as reporting
from meta_ood.config import Params
from meta_ood.data.context import Log, Machine

logger = logging.getLogger(__name__)


def run(
    params: Params,
    *,
    evaluation: Path,
    report: Path,
    log: Log,
    machine: Machine,
    experiments: str = "",
) -> None:
    """Write ``index.html`` and ``results.csv``, ``.md`` and ``.txt``.

    Parameters
    ----------
    params
        Names networks, variants and evaluation sets; cells without result are named in the page.
    evaluation
        Folder with ``<network>/<variant>/<dataset>/{metrics.json, curves/, pictures/}``.
    report
        Folder to write; same inputs, same bytes.
    log, machine
        Not used: the report has no curve and no heavy work.
    experiments
        What ``dvc exp show --csv`` prints, for a section over seeds; the pipeline gives none.
    """
    results = reporting.read_results(
        evaluation, params.networks, params.variants, params.evaluation_sets
    )
    for key in results.missing:
        logger.warning("no metrics.json for %s", "/".join(key))
    beside = reporting.match_published(
        results, params.network, params.datasets, reporting.read_published()
    )
    found = reporting.read_experiments(experiments) if experiments else []
    page = reporting.html_page(
        params.report.title,
        results,
        reporting.provenance(params, results),
        reporting.published_section(beside),
        found,
    )
    texts = {
        "index.html": page,
        "results.csv": reporting.csv_table(results.ordered),
        "results.md": reporting.markdown_table(results.ordered)
        + f"\n{reporting.published_markdown(beside)}",
        "results.txt": reporting.text_table(results.ordered)
        + f"\n{reporting.published_text(beside)}",
    }
    report.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        temporary = report / f".{name}.{os.getpid()}.tmp"
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(report / name)
