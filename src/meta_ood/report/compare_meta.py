"""Compare meta classifiers and fold schemes, and apply each to the other datasets."""

import logging
import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from meta_ood.data.text_table import markdown_table
from meta_ood.meta_classification import quality
from meta_ood.meta_classification.classifier import fit
from meta_ood.meta_classification.cross_validation import operating_points
from meta_ood.meta_classification.features import false_positives
from meta_ood.meta_classification.folds import FOLDS, out_of_fold
from meta_ood.meta_classification.models import CLASSIFIERS
from meta_ood.metrics import Flags, Floats, component
from meta_ood.metrics.segment import segment_errors
from meta_ood.segments import SegmentTable

logger = logging.getLogger(__name__)


class MetaComparison(NamedTuple):
    """One classifier on the segments of one table; what is not defined is NaN."""

    trained_on: str
    tested_on: str  # the same as `trained_on`: cross-validated
    classifier: str
    folds: str  # empty if trained on another table
    segments: int
    false: int
    removed_false: int
    lost_true: int  # true segments that were removed
    segment_f1: tuple[float, float]  # of all segments, of those kept
    component_f1: tuple[float, float]
    auroc: float  # this and the next three: of the segments that a classifier was fitted for
    auprc: float
    brier: float
    calibration_error: float
    kept_without_classifier: int


def compare(
    tables: Mapping[str, SegmentTable],
    classifiers: Sequence[str] = tuple(CLASSIFIERS),
    folds: Sequence[str] = tuple(FOLDS),
    most_fits: int = 400,
    max_lost: float | None = None,
) -> list[MetaComparison]:
    """Cross-validate each classifier in each fold scheme, and test it on the other tables.

    Args:
        tables: Name -> segments; all with the same features.
        classifiers, folds: Names in ``CLASSIFIERS`` and ``FOLDS``.
        most_fits: Schemes that need more fits of one classifier are left out. The logistic regression leaves single
            segments out without a fit each.
        max_lost: None removes at probability 0.5; otherwise the most true segments, as a fraction in [0, 1], that may
            be lost. The operating point is chosen without the tested fold or table.
    """
    rows = []
    # 1. cross validation of each table
    for name, table in tables.items():
        for classifier, scheme in product(classifiers, folds):
            # "published" is defined for the logistic regression alone
            fits = {"leave_one_out": len(table.features), "published": math.inf}.get(scheme, 0)
            if classifier != "logistic_regression" and fits > most_fits:
                continue
            logger.info("%s: %s, folds by %s", name, classifier, scheme)
            found = out_of_fold(table, scheme, classifier)
            points: Floats | float = 0.5  # the published one
            if max_lost is not None:
                points = operating_points(table, found, scheme, classifier, {}, max_lost)
            rows.append(_row((name, name, classifier, scheme), table, found.probability, found.has_classifier, points))
    # 2. trained on one table, tested on the others
    for source, classifier in product(tables, classifiers) if len(tables) > 1 else ():
        logger.info("%s: %s, tested on the other tables", source, classifier)
        fitted, point = fit(tables[source], classifier), 0.5
        if max_lost is not None:
            probability = out_of_fold(tables[source], "scene", classifier).probability
            false = false_positives(tables[source])
            point = quality.operating_point_for_max_lost(probability, false, max_lost)
        for target, table in tables.items():
            if source != target:
                known = np.full(len(table.features), not fitted.fit_failure)
                rows.append(_row((source, target, classifier, ""), table, fitted.probability(table), known, point))
    return rows


def _row(
    names: tuple[str, str, str, str], table: SegmentTable, probability: Floats, known: Flags, points: Floats | float
) -> MetaComparison:
    false = false_positives(table)
    removed = probability > points
    errors = segment_errors(table, removed).summary()
    overlaps = [component.of_table(table, kept) for kept in (None, ~removed)]
    of_known = probability[known], false[known]
    return MetaComparison(
        *names,
        segments=len(false),
        false=int(false.sum()),
        removed_false=int((removed & false).sum()),
        lost_true=int((removed & ~false).sum()),
        segment_f1=(errors["before"]["f1"], errors["after_meta"]["f1"]),
        component_f1=(component.component_metrics(overlaps[0]).f1, component.component_metrics(overlaps[1]).f1),
        auroc=quality.auroc(*of_known),
        auprc=quality.auprc(*of_known),
        brier=quality.brier(*of_known),
        calibration_error=quality.calibration(*of_known).error,
        kept_without_classifier=int((~known).sum()),
    )


def as_markdown(rows: Sequence[MetaComparison]) -> str:
    """Return the rows as a Markdown table."""
    titles = ["segments", "classifier", "folds", "n", "false", "false removed", "true lost"]
    titles += ["segment F1", "component F1", "AUROC", "AUPRC", "Brier", "ECE"]
    lines = []
    for row in rows:
        names = row.trained_on if row.tested_on == row.trained_on else f"{row.trained_on} → {row.tested_on}"
        without = f" ({row.kept_without_classifier} without classifier)" if row.kept_without_classifier else ""
        counts = [f"{row.segments}{without}", *map(str, (row.false, row.removed_false, row.lost_true))]
        f1 = [" → ".join(map(_short, pair)) for pair in (row.segment_f1, row.component_f1)]
        values = map(_short, (row.auroc, row.auprc, row.brier, row.calibration_error))
        lines.append([names, row.classifier, row.folds or "–", *counts, *f1, *values])
    return markdown_table(titles, lines) + "\n"


def _short(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
