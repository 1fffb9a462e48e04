"""Evaluate score maps of any method: a folder of maps and a folder of targets, no network."""

import logging
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from meta_ood.data import arrays, files
from meta_ood.data.arrays import read_array
from meta_ood.data.images import read_label_map
from meta_ood.data.labels import BINARY, IGNORE, IN, NEUTRAL, OOD, LabelMap
from meta_ood.data.registry import lookup
from meta_ood.data.text_table import text_table
from meta_ood.evaluation.counting import for_each
from meta_ood.metrics import component
from meta_ood.metrics.pixel import PER_IMAGE, PROTOCOLS, RESIZED, ScoreHistogram, f1_at, pixel_metrics, sweep
from meta_ood.metrics.pixel.keys import checked_scores

logger = logging.getLogger(__name__)

ENCODINGS: dict[str, Mapping[int, int]] = {
    "binary": BINARY,
    "meta-ood": {**{i: i for i in range(NEUTRAL)}, **{v: v for v in (NEUTRAL, IN, OOD, IGNORE)}},
}
"""Name -> target value in the files -> ours. ``binary``: Fishyscapes and SegmentMeIfYouCan."""

OF_MAPS = {name: rule for name, rule in PROTOCOLS.items() if name != RESIZED}
"""Protocols for score maps, which have one size."""


def read_target(path: Path, encoding: str) -> LabelMap:
    """Read a target and translate it into our encoding.

    Raises:
        ValueError: If a value is not in the encoding; the values are named.
    """
    table = lookup("encoding", ENCODINGS, encoding)
    raw = read_array(path) if path.suffix == ".npy" else read_label_map(path)
    target = np.zeros(raw.shape, np.uint8)
    for value in np.unique(raw).tolist():
        if value not in table:
            known = ", ".join(map(str, table)) if len(table) < 9 else "0..255"
            raise ValueError(f"{path}: value {value} is not in the encoding {encoding}: {known}")
        target[raw == value] = table[value]
    return target


def pair_files(scores: Path, targets: Path, score_end: str = "", target_end: str = "") -> list[tuple[str, Path, Path]]:
    """Pair score maps and targets by name.

    Args:
        scores, targets: Folders.
        score_end, target_end: Ends of the stems that do not belong to the name, such as ``_labels_semantic``.

    Returns:
        ``(name, score map, target)``, sorted by name.

    Raises:
        FileNotFoundError: If a folder is missing or holds no map.
        ValueError: If a target has no score map, or a name occurs twice. Maps without target are left out, with a
            warning.
    """
    maps = _by_name(scores, arrays.SUFFIXES, score_end)
    truths = _by_name(targets, (".png", ".npy", ".tif", ".tiff"), target_end)
    if missing := sorted(set(truths) - set(maps)):
        raise ValueError(
            f"{scores}: no score map for {_some(missing)}; its maps are {_some(sorted(maps))}. Names that differ at "
            "their end alone are paired by --score-end and --target-end"
        )
    if extra := sorted(set(maps) - set(truths)):
        logger.warning("no target for the score maps %s: left out", _some(extra))
    return [(name, maps[name], truths[name]) for name in sorted(truths)]


def _some(names: Sequence[str]) -> str:
    """Return the first three names and the number of the others."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _by_name(folder: Path, suffixes: Sequence[str], end: str) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix not in suffixes or not path.stem.endswith(end):
            continue
        if (first := named.setdefault(path.stem.removesuffix(end), path)) != path:
            raise ValueError(f"{first} and {path} have the same name")
    if not named:
        raise FileNotFoundError(f"{folder}: no file *{end} with one of {', '.join(suffixes)}")
    return named


def evaluate_maps(
    pairs: Sequence[tuple[str, Path, Path]],
    protocols: Sequence[str] = ("exact",),
    *,
    encoding: str = "binary",
    track: str | None = None,
    threshold: float | None = None,
    workers: int = 1,
) -> dict[str, Any]:
    """Return pixel metrics of score maps by each protocol, and component metrics.

    Args:
        pairs: As :func:`pair_files` returns them.
        protocols, encoding: Keys of :data:`OF_MAPS` and :data:`ENCODINGS`.
        track: Key of :data:`meta_ood.metrics.component.TRACKS`, for component metrics.
        threshold: Of the score, for component metrics. None chooses one on this set itself, which is optimistic: by
            SegmentMeIfYouCan's rule if ``smiyc`` is among the protocols, else the best pixel F1.
        workers: Threads; they change nothing.

    Returns:
        ``protocols``: name -> metrics. If a track was asked for, ``component``; and if ``smiyc`` is one of several
        protocols, ``component_best_pixel_f1`` by our own rule.

    Raises:
        ValueError: Unknown names, a threshold that is not finite, damaged maps.
    """
    # names first: counting may take hours
    for protocol in protocols:
        lookup("protocol", OF_MAPS, protocol)
    lookup("encoding", ENCODINGS, encoding)
    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"threshold {threshold}: expected a finite number")
    sizes = lookup("track", component.TRACKS, track) if track else None
    # 1. all pixels in one histogram: the order in which threads add does not matter
    total, lock = ScoreHistogram(), threading.Lock()

    def count(pair: tuple[str, Path, Path]) -> None:
        name, score, target = pair[0], read_array(pair[1]), read_target(pair[2], encoding)
        with lock:
            total.add(score, target, name=name, curve=any(p in PER_IMAGE for p in protocols))

    for_each(count, pairs, "pixels", workers)
    result: dict[str, Any] = {"protocols": {name: asdict(pixel_metrics(total, name)) for name in protocols}}
    if sizes is None or not total.positives:
        return result

    # 2. components, in a second pass: the threshold depends on all pixels
    curve = sweep(total)
    cuts = {"component": component.Cut.choose(total, curve, threshold, "smiyc" in protocols)}
    if threshold is None and {*protocols} > {"smiyc"}:
        cuts["component_best_pixel_f1"] = component.Cut.choose(total, curve)
    cuts = {key: cut for key, cut in cuts.items() if not math.isnan(cut.threshold)}

    def overlap(pair: tuple[str, Path, Path]) -> list[component.Overlaps]:
        truth = read_target(pair[2], encoding)
        score = checked_scores(read_array(pair[1]), truth, pair[0])
        return [component.of_mask(cut.mask(score, truth), truth, *sizes) for cut in cuts.values()]

    found = for_each(overlap, pairs, "components", workers)
    for (key, cut), parts in zip(cuts.items(), zip(*found, strict=True), strict=True):
        pixel_f1 = {"pixel_f1": f1_at(curve, cut.threshold, cut.strict)}
        result[key] = cut.values(track or "", component.Overlaps.concatenate(parts)) | pixel_f1
    return result


def chosen_threshold(path: Path) -> float:
    """Return the threshold in the JSON file that an evaluation of another set wrote.

    Raises:
        ValueError: If there is none, or it was not chosen on that set.
    """
    values = files.read_json(path)
    try:
        found = values["component"]
        threshold, is_chosen = float(found["threshold"]), found["threshold_is_oracle"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected what evaluate-maps --track TRACK --out FILE writes: {error!r}") from None
    if not is_chosen:
        raise ValueError(f"{path}: its threshold was given, not chosen on its set")
    return threshold


def maps_text(result: dict[str, Any]) -> str:
    """Return the metrics of :func:`evaluate_maps` as a table for people, in percent."""
    rates, counts = ("auroc", "auprc", "fpr95"), ("frames", "pixels", "positives", "ignored")
    rows = [
        [name, *(_percent(one[key]) for key in rates), *(str(one[key]) for key in counts)]
        for name, one in result["protocols"].items()
    ]
    text = text_table(["protocol", *(f"{name.upper()} [%]" for name in rates), *counts], rows)
    rules = {
        "given": "which was given",
        "best_pixel_f1": "the best pixel F1 of this very set: an oracle",
        "smiyc": "SegmentMeIfYouCan's choice on this very set: an oracle",
    }
    for key in ("component", "component_best_pixel_f1"):
        if found := result.get(key):
            siou, ppv, f1 = (_percent(found[name]) for name in ("siou", "ppv", "f1"))
            # JSON has no infinity: a set whose best threshold is an infinite score
            threshold = "an infinite score" if found["threshold"] is None else f"{found['threshold']:.6g}"
            text += (
                f"\n\ncomponents, track {found['track']}: sIoU {siou} %, PPV {ppv} %, mean F1 {f1} %\n"
                f"at the threshold {threshold}, {rules[found['rule']]}; "
                f"{found['components']} components, {found['segments']} segments"
            )
    return text


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"
