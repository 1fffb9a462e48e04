"""Meta classifiers and fold schemes side by side, and carried over to other datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from meta_ood.meta_classification import quality
from meta_ood.meta_classification.classifier import fit
from meta_ood.meta_classification.families import CLASSIFIERS
from meta_ood.meta_classification.features import Flags, Floats, Segments, false_positives
from meta_ood.meta_classification.folds import FOLDS, out_of_fold

_QUICK = "logistic_regression"
"""Leaves single segments out without fitting anew."""


@dataclass(frozen=True)
class Row:
    """How good one way of judging the segments of one table is.

    Attributes
    ----------
    trained_on, tested_on
        Names of the tables; the same = cross-validated.
    classifier, folds
        Names in ``CLASSIFIERS`` and ``FOLDS``; ``folds`` is "" for a transfer.
    segments, false
        How many, and how many of them are false.
    removed_false, lost_true
        False segments that go, true segments that go with them, at probability 0.5.
    auroc, auprc, brier, calibration_error
        Of the probabilities of the segments judged, 1 = false; NaN where not defined.
    kept_unjudged
        Segments kept because nothing could be learnt for them.
    """

    trained_on: str
    tested_on: str
    classifier: str
    folds: str
    segments: int
    false: int
    removed_false: int
    lost_true: int
    auroc: float
    auprc: float
    brier: float
    calibration_error: float
    kept_unjudged: int


def _row(
    names: tuple[str, str, str, str], table: Segments, probability: Floats, judged: Flags
) -> Row:
    false = false_positives(table)
    removed = probability > 0.5
    said, answer = probability[judged], false[judged]
    return Row(
        *names,
        segments=len(false),
        false=int(false.sum()),
        removed_false=int((removed & false).sum()),
        lost_true=int((removed & ~false).sum()),
        auroc=quality.auroc(said, answer),
        auprc=quality.auprc(said, answer),
        brier=quality.brier(said, answer),
        calibration_error=quality.calibration(said, answer).error,
        kept_unjudged=int((~judged).sum()),
    )


def compare(
    tables: Mapping[str, Segments],
    classifiers: Sequence[str] = tuple(CLASSIFIERS),
    folds: Sequence[str] = tuple(FOLDS),
    most_fits: int = 400,
) -> list[Row]:
    """Cross-validate each classifier in each fold scheme on each table, then carry each over.

    Parameters
    ----------
    tables
        Name -> segments; all with the same features.
    classifiers, folds
        Names in ``CLASSIFIERS`` and ``FOLDS``.
    most_fits
        Schemes that would need more cold fits of one classifier are left out; the leave-one-out of
        the logistic regression is no cold fit.

    Returns
    -------
    Rows: cross-validated first, then trained on all of one table and tested on another.

    Raises
    ------
    ValueError
        Unknown names; tables with different features.
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
                rows.append(_row(names, table, judged.probability, judged.judged))
    for source, learnt_from in tables.items():
        for target, table in tables.items():
            if source == target:
                continue
            for classifier in classifiers:
                fitted = fit(learnt_from, classifier)
                known = np.full(len(table.features), not fitted.keep_everything)
                names = (source, target, classifier, "")
                rows.append(_row(names, table, fitted.probability(table), known))
    return rows


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table.

    Examples
    --------
    >>> row = Row("a", "b", "logistic_regression", "", 4, 3, 2, 1, 0.5, 0.75, 0.2, 0.1, 0)
    >>> print(as_markdown([row]).splitlines()[2])
    | a → b | logistic_regression | – | 4 | 3 | 2 | 1 | 0.500 | 0.750 | 0.200 | 0.100 |
    """
    lines = [
        "| segments | classifier | folds | n | false | false removed | true lost "
        "| AUROC | AUPRC | Brier | ECE |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        names = row.trained_on
        if row.tested_on != row.trained_on:
            names += f" → {row.tested_on}"
        figures = (row.auroc, row.auprc, row.brier, row.calibration_error)
        said = " | ".join("–" if np.isnan(f) else f"{f:.3f}" for f in figures)
        unjudged = f" ({row.kept_unjudged} unjudged)" if row.kept_unjudged else ""
        lines.append(
            f"| {names} | {row.classifier} | {row.folds or '–'} | {row.segments}{unjudged} "
            f"| {row.false} | {row.removed_false} | {row.lost_true} | {said} |"
        )
    return "\n".join(lines) + "\n"
