"""Meta classifiers and fold schemes side by side, and carried over to other datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from meta_ood.meta_classification import quality
from meta_ood.meta_classification.classifier import fit
from meta_ood.meta_classification.cross_validation import operating_points
from meta_ood.meta_classification.features import Flags, Floats, false_positives
from meta_ood.meta_classification.folds import FOLDS, out_of_fold
from meta_ood.meta_classification.models import CLASSIFIERS
from meta_ood.metrics import component
from meta_ood.metrics.segment import segment_errors
from meta_ood.segments import SegmentTable

_HALF = 0.5
"""The published operating point."""

_QUICK = "logistic_regression"
"""Leaves single segments out without fitting anew."""


@dataclass(frozen=True)
class Row:
    """How good one way of judging the segments of one table is.

    Attributes:
        trained_on, tested_on: Names of the tables; the same = cross-validated.
        classifier, folds: Names in ``CLASSIFIERS`` and ``FOLDS``; ``folds`` is "" for a transfer.
        segments, false: How many, and how many of them are false.
        removed_false, lost_true: False segments that go, true segments that go with them.
        segment_f1, component_f1: Before and after: of all segments, and of those kept; NaN where nothing is there.
        auroc, auprc, brier, calibration_error: Of the probabilities of the segments judged, 1 = false; NaN where not
            defined.
        kept_unjudged: Segments kept because nothing could be learnt for them.
    """

    trained_on: str
    tested_on: str
    classifier: str
    folds: str
    segments: int
    false: int
    removed_false: int
    lost_true: int
    segment_f1: tuple[float, float]
    component_f1: tuple[float, float]
    auroc: float
    auprc: float
    brier: float
    calibration_error: float
    kept_unjudged: int


def _row(
    names: tuple[str, str, str, str], table: SegmentTable, probability: Floats, judged: Flags, points: Floats | float
) -> Row:
    false = false_positives(table)
    removed = probability > points
    said, answer = probability[judged], false[judged]
    of_segments = segment_errors(table, removed).summary()
    before, after = (component.component_metrics(component.of_table(table, kept)).f1 for kept in (None, ~removed))
    return Row(
        *names,
        segments=len(false),
        false=int(false.sum()),
        removed_false=int((removed & false).sum()),
        lost_true=int((removed & ~false).sum()),
        segment_f1=(of_segments["before"]["f1"], of_segments["after_meta"]["f1"]),
        component_f1=(before, after),
        auroc=quality.auroc(said, answer),
        auprc=quality.auprc(said, answer),
        brier=quality.brier(said, answer),
        calibration_error=quality.calibration(said, answer).error,
        kept_unjudged=int((~judged).sum()),
    )


def compare(
    tables: Mapping[str, SegmentTable],
    classifiers: Sequence[str] = tuple(CLASSIFIERS),
    folds: Sequence[str] = tuple(FOLDS),
    most_fits: int = 400,
    max_lost: float | None = None,
) -> list[Row]:
    """Cross-validate each classifier in each fold scheme on each table, then carry each over.

    Args:
        tables: Name -> segments; all with the same features.
        classifiers, folds: Names in ``CLASSIFIERS`` and ``FOLDS``.
        most_fits: Schemes that would need more cold fits of one classifier are left out; the leave-one-out of the
            logistic regression is no cold fit.
        max_lost: None removes at probability 0.5; otherwise the most true segments, as a fraction in [0, 1], that may
            be lost: the operating point is chosen without the fold judged, and for a transfer on the table trained on,
            judged by scene.

    Returns:
        Rows: cross-validated first, then trained on all of one table and tested on another.

    Raises:
        ValueError: Unknown names; tables with different features.
    """
    rows = []
    for name, table in tables.items():
        for classifier in classifiers:
            for scheme in folds:
                cold = scheme in ("leave_one_out", "published") and classifier != _QUICK
                if cold and (scheme == "published" or len(table.features) > most_fits):
                    continue
                judged = out_of_fold(table, scheme, classifier)
                names = (name, name, classifier, scheme)
                points: Floats | float = _HALF
                if max_lost is not None:
                    points = operating_points(table, judged, scheme, classifier, {}, max_lost)
                rows.append(_row(names, table, judged.probability, judged.has_classifier, points))
    for source, learnt_from in tables.items():
        for classifier in classifiers if len(tables) > 1 else ():
            fitted, point = fit(learnt_from, classifier), _HALF
            if max_lost is not None:
                said = out_of_fold(learnt_from, "scene", classifier).probability
                false = false_positives(learnt_from)
                point = quality.operating_point_for_max_lost(said, false, max_lost)
            for target, table in tables.items():
                if source == target:
                    continue
                known = np.full(len(table.features), not fitted.fit_failure)
                names = (source, target, classifier, "")
                rows.append(_row(names, table, fitted.probability(table), known, point))
    return rows


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table.

    Examples:
        >>> f1 = (0.4, 0.8), (0.1, 0.125)
        >>> row = Row("a", "b", "logistic_regression", "", 4, 3, 2, 1, *f1, 0.5, 0.75, 0.2, 0.1, 0)
        >>> for line in as_markdown([row]).splitlines()[2].split(" | ", 7):
        ...     print(line)
        | a → b
        logistic_regression
        –
        4
        3
        2
        1
        0.400 → 0.800 | 0.100 → 0.125 | 0.500 | 0.750 | 0.200 | 0.100 |
    """
    lines = [
        "| segments | classifier | folds | n | false | false removed | true lost "
        "| segment F1 | component F1 | AUROC | AUPRC | Brier | ECE |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        names = row.trained_on
        if row.tested_on != row.trained_on:
            names += f" → {row.tested_on}"
        f1 = (" → ".join(map(_short, pair)) for pair in (row.segment_f1, row.component_f1))
        figures = map(_short, (row.auroc, row.auprc, row.brier, row.calibration_error))
        unjudged = f" ({row.kept_unjudged} unjudged)" if row.kept_unjudged else ""
        lines.append(
            f"| {names} | {row.classifier} | {row.folds or '–'} | {row.segments}{unjudged} "
            f"| {row.false} | {row.removed_false} | {row.lost_true} "
            f"| {' | '.join((*f1, *figures))} |"
        )
    return "\n".join(lines) + "\n"


def _short(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
