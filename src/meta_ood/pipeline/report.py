"""Stage `report`: all evaluations as one page, and as a table in CSV, Markdown and text."""

from pathlib import Path

from meta_ood.config import Params
from meta_ood.data.context import Log, Machine
from meta_ood.data.files import write_json, write_text
from meta_ood.report.compare import read_experiments
from meta_ood.report.frames import gallery, read_cells
from meta_ood.report.page import curve_tables, provenance, report_page, results_tables
from meta_ood.report.published import match_published, read_published
from meta_ood.report.results import network_metrics, read_results


def run(
    params: Params,
    *,
    evaluation: Path,
    prepared: Path,
    segments: Path,
    meta: Path,
    report: Path,
    summary: Path,
    log: Log,
    machine: Machine,
    experiments: str = "",
) -> None:
    """Write ``index.html``, ``results.csv``, ``.md``, ``.txt`` and ``curves/``; the same inputs give the same bytes.

    Args:
        params: Names networks, variants and datasets.
        evaluation: Folder with ``<network>/<variant>/<dataset>/{metrics.json, curves/, pictures/, masks.h5}``.
        prepared, segments, meta: Folders of these stages: images, segments and why they were kept, for the gallery.
        report: Folder to write.
        summary: JSON file to write: three metrics of each network, which DVC shows beside each other.
        log, machine: Not used.
        experiments: What ``dvc exp show --csv`` prints, for a section over seeds; the pipeline gives none.

    Raises:
        FileNotFoundError: If an evaluation that params.yaml names is missing.
    """
    # 1. what was evaluated, and what is published of the same networks and datasets
    results = read_results(evaluation, params.networks, params.variants, params.evaluation_sets)
    if results.missing:
        missing = f"{len(results.missing)} of {len(results.keys)} evaluations, such as {'/'.join(results.missing[0])}"
        remedy = "run dvc repro, or leave them out with --set networks, variants or evaluation_sets"
        raise FileNotFoundError(f"{evaluation} lacks {missing}: {remedy}")
    published = match_published(results, params.network, params.datasets, read_published())
    settings = read_experiments(experiments) if experiments else []
    # 2. the page, and the tables
    cells = read_cells(results, segments, meta)
    shown = gallery(cells, prepared, params.seed)
    page = report_page(params.report.title, results, provenance(params, results), published, settings, cells, shown)
    write_text(report / "index.html", page)
    for name, text in results_tables(results, published).items():
        write_text(report / name, text)
    for name, text in curve_tables(results).items():
        write_text(report / "curves" / name, text)
    write_json(summary, network_metrics(results))
