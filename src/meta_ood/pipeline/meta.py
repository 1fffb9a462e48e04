"""Stage `meta`: table of segments -> meta classifier, out-of-fold probabilities, how good."""

from __future__ import annotations

import csv
import io
import json
import logging
from pathlib import Path

from meta_ood.config import Params
from meta_ood.data.context import Log, Machine
from meta_ood.meta_classification.explanation import explain
from meta_ood.meta_classification.judgement import judge
from meta_ood.segments import table_file

_log = logging.getLogger(__name__)


def run(
    params: Params,
    *,
    network: str,
    variant: str,
    dataset: str,
    segments: Path,
    meta: Path,
    log: Log,
    machine: Machine,
) -> None:
    """Judge every segment by a classifier that has not seen its fold.

    Writes into `meta`: ``classifier.json`` (fitted on all segments), ``probabilities.csv``
    (segment, image_id, scene, out-of-fold probability of being a false positive, removed, estimated
    IoU; in the table's order), ``metrics.json`` and ``explanation.json``.
    """
    del machine
    table = table_file.read_table(segments)
    judged = judge(
        table,
        classifier=params.meta.classifier,
        options=params.meta.classifier_options,
        folds=params.meta.folds,
        operating_point=params.meta.operating_point,
        max_lost=params.meta.max_lost,
    )
    explained = explain(table, params.meta.folds, params.meta.bootstrap, params.seed)
    if reason := judged.metrics["keep_everything"]:
        _log.warning(
            "%s %s %s: segments kept without a verdict: %s", network, variant, dataset, reason
        )

    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(("segment", "image_id", "scene", "probability", "removed", "estimated_iou"))
    for segment, image in enumerate(table.image):
        said = (judged.probability[segment], judged.estimated_iou[segment])
        probability, iou = (f"{value:.9f}" for value in said)
        place = (segment, table.image_ids[image], table.scenes[image])
        writer.writerow((*place, probability, int(judged.removed[segment]), iou))
    meta.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("classifier.json", judged.classifier.to_json()),
        ("probabilities.csv", rows.getvalue()),
        ("explanation.json", json.dumps(explained, indent=2, allow_nan=False) + "\n"),
        ("metrics.json", json.dumps(judged.metrics, indent=2, allow_nan=False) + "\n"),
    ):
        temporary = meta / f"{name}.tmp"
        temporary.write_text(text, encoding="utf-8", newline="")
        temporary.replace(meta / name)
    log({f"meta/{k}": v for k, v in judged.metrics.items() if isinstance(v, int | float)}, 0)
