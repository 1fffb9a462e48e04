"""The results table as text, Markdown and CSV: one row per network, variant and dataset."""

from __future__ import annotations

from collections.abc import Sequence

from meta_ood.data.files import csv_text
from meta_ood.data.text_table import markdown_table, text_table
from meta_ood.metrics.catalogue import METRICS
from meta_ood.report.results import Evaluation

_ERRORS = ("segment_false_positives", "segment_false_negatives")
PRINTED = [METRICS[key] for key in ("auroc", "fpr95", "auprc")]
PRINTED += [METRICS[f"{key}{suffix}"] for key in _ERRORS for suffix in ("", "_after_meta")]
PRINTED += [METRICS["miou"]]

_NAMES = ["network", "dataset", "variant"]
_ONLY_IN_CSV = (
    "true_segments_removed",
    "segment_f1",
    "segment_f1_after_meta",
    "component_f1",
    "component_f1_after_meta",
)
NOTE = """\
FP, FN: false positive and false negative segments before and after meta classification.
Each segment is classified out of fold: by a meta classifier that was fitted without the segment's
fold. The detector's classifier is fitted on all segments, so it decides differently about some."""


def results_text(evaluations: Sequence[Evaluation]) -> str:
    """Return the results for a terminal, at most 120 characters wide in the demo."""
    rows = []
    last = ("", "")
    for one in evaluations:
        names = (one.network, one.dataset)
        # a name equal to that of the row above is not repeated
        shown = ("", "") if names == last else names
        rows.append([*shown, one.variant, *(m.text(one.value(m.key)) for m in PRINTED)])
        last = names
    header = [*_NAMES, *("\n".join(metric.heading) for metric in PRINTED)]
    return f"{text_table(header, rows, left=len(_NAMES))}\n\n{NOTE}\n"


def results_markdown(evaluations: Sequence[Evaluation]) -> str:
    """Return the results as a Markdown table, every row complete."""
    titles = [f"{a} {'[%]' if b == '%' else b}" for a, b in (m.heading for m in PRINTED)]
    rows = [
        [one.network, one.dataset, one.variant, *(m.text(one.value(m.key)) for m in PRINTED)] for one in evaluations
    ]
    return f"{markdown_table([*_NAMES, *titles], rows, left=len(_NAMES))}\n\n{NOTE}\n"


def results_csv(evaluations: Sequence[Evaluation]) -> str:
    """Return the results as CSV with a header; fractions in [0, 1], empty where undefined.

    Examples:
        >>> print(results_csv([Evaluation("mini", "baseline", "val", {"miou": 0.845})]).split()[1])
        mini,val,baseline,,,,,,,,0.845,,,,,
    """
    keys = [*(metric.key for metric in PRINTED), *_ONLY_IN_CSV]
    rows = [
        [one.network, one.dataset, one.variant] + ["" if (v := one.value(key)) is None else f"{v:.10g}" for key in keys]
        for one in evaluations
    ]
    return csv_text([*_NAMES, *keys], rows)
