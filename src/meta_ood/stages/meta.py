"""Stage `meta`: table of segments -> meta classifier, out-of-fold probabilities, how good."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from meta_ood import storage
from meta_ood.config import Params
from meta_ood.context import Log, Machine
from meta_ood.meta_classification.judgement import judge

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
    (segment, image_id, scene, out-of-fold probability of being a false positive, removed; in the
    table's order) and ``metrics.json``.
    """
    del machine
    table = storage.read_table(segments)
    judged = judge(
        table,
        classifier=params.meta.classifier,
        options=params.meta.classifier_options,
        folds=params.meta.folds,
        operating_point=params.meta.operating_point,
    )
    if reason := judged.metrics["keep_everything"]:
        _log.warning(
            "%s %s %s: segments kept without a verdict: %s", network, variant, dataset, reason
        )

    def write_probabilities(file: TextIO) -> None:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("segment", "image_id", "scene", "probability", "removed"))
        for segment, image in enumerate(table.image):
            place = (table.image_ids[image], table.scenes[image])
            probability = f"{judged.probability[segment]:.9f}"
            writer.writerow((segment, *place, probability, int(judged.removed[segment])))

    meta.mkdir(parents=True, exist_ok=True)
    _write(meta / "classifier.json", lambda file: file.write(judged.classifier.to_json()))
    _write(meta / "probabilities.csv", write_probabilities)
    text = json.dumps(judged.metrics, indent=2, allow_nan=False) + "\n"
    _write(meta / "metrics.json", lambda file: file.write(text))
    log({f"meta/{k}": v for k, v in judged.metrics.items() if isinstance(v, int | float)}, 0)


def _write(path: Path, write: Callable[[TextIO], object]) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        write(file)
    temporary.replace(path)
