"""Evaluate anybody's score maps: a folder of maps, a folder of targets, no network of ours."""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from meta_ood.data.context import progress
from meta_ood.data.hdf5 import read_map
from meta_ood.data.labels import IGNORE, IN, NEUTRAL, OOD, LabelMap
from meta_ood.data.registry import lookup
from meta_ood.metrics import component
from meta_ood.metrics.pixel import (
    PER_IMAGE,
    ScoreHistogram,
    at_threshold,
    best_f1,
    just_below,
    pixel_metrics,
)

logger = logging.getLogger(__name__)

ENCODINGS: dict[str, dict[int, int]] = {
    "binary": {0: IN, 1: OOD, 255: IGNORE},
    "meta-ood": {**{i: i for i in range(NEUTRAL)}, **{v: v for v in (NEUTRAL, IN, OOD, IGNORE)}},
}
"""Name -> target value in the files -> ours. ``binary``: Fishyscapes and SegmentMeIfYouCan."""

SCORE_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".tif", ".tiff", ".png")
TARGET_SUFFIXES = (".png", ".npy", ".tif", ".tiff")


def read_array(path: Path) -> npt.NDArray[Any]:
    """Read a two-dimensional map from npy, npz, HDF5, tif or png.

    Raises
    ------
    ValueError
        If the file cannot be read, holds several arrays, or is not two-dimensional.
    """
    array: npt.NDArray[Any]
    try:
        if path.suffix == ".npy":
            array = np.load(path, allow_pickle=False)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                if len(file.files) != 1:
                    raise ValueError(f"expected one array, found {', '.join(file.files)}")
                array = file[file.files[0]]
        elif path.suffix in (".h5", ".hdf5"):
            array = read_map(path)
        else:
            with Image.open(path) as image:
                array = np.asarray(image)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: not a readable map: {error}") from error
    array = (
        np.squeeze(array) if array.ndim == 3 and 1 in (array.shape[0], array.shape[2]) else array
    )
    if array.ndim != 2:
        raise ValueError(f"{path}: expected one value a pixel, got shape {array.shape}")
    return array


def read_target(path: Path, encoding: str) -> LabelMap:
    """Read a target and translate it into our encoding.

    Raises
    ------
    ValueError
        If a value is not in the encoding; the values are named.
    """
    table = lookup("encoding", ENCODINGS, encoding)
    raw = read_array(path)
    target = np.zeros(raw.shape, np.uint8)
    for value in np.unique(raw).tolist():
        if value not in table:
            known = ", ".join(map(str, table)) if len(table) < 9 else "0..255"
            raise ValueError(f"{path}: value {value} is not in the encoding {encoding}: {known}")
        target[raw == value] = table[value]
    return target


def pair_files(
    scores: Path, targets: Path, score_end: str = "", target_end: str = ""
) -> list[tuple[str, Path, Path]]:
    """Pair score maps and targets by name.

    Parameters
    ----------
    scores, targets
        Folders.
    score_end, target_end
        Ends of the stems that do not belong to the name, such as ``_labels_semantic``.

    Returns
    -------
    ``(name, score map, target)``, sorted by name.

    Raises
    ------
    FileNotFoundError
        If a folder is missing or holds no map.
    ValueError
        If a target has no score map, or a name occurs twice. Maps without target are left out,
        with a warning.
    """
    found = []
    for folder, suffixes, end in (
        (scores, SCORE_SUFFIXES, score_end),
        (targets, TARGET_SUFFIXES, target_end),
    ):
        files: dict[str, Path] = {}
        for path in sorted(folder.rglob("*")):
            if path.suffix in suffixes and path.stem.endswith(end):
                name = path.stem.removesuffix(end)
                if name in files:
                    raise ValueError(f"{files[name]} and {path} have the same name")
                files[name] = path
        if not files:
            raise FileNotFoundError(f"{folder}: no file *{end} with one of {', '.join(suffixes)}")
        found.append(files)
    maps, truths = found
    if missing := sorted(set(truths) - set(maps)):
        some = ", ".join(missing[:5])
        raise ValueError(f"{scores}: no score map for {len(missing)} targets: {some} …")
    if extra := sorted(set(maps) - set(truths)):
        logger.warning("%d score maps have no target: %s …", len(extra), ", ".join(extra[:5]))
    return [(name, maps[name], truths[name]) for name in sorted(truths)]


def evaluate_maps(
    pairs: Sequence[tuple[str, Path, Path]],
    protocols: Sequence[str] = ("exact",),
    *,
    encoding: str = "binary",
    track: str | None = None,
    threshold: float | None = None,
    workers: int = 1,
) -> dict[str, Any]:
    """Evaluate score maps.

    Parameters
    ----------
    pairs
        As :func:`pair_files` returns them.
    protocols
        Keys of :data:`meta_ood.metrics.pixel.PROTOCOLS`.
    encoding
        Key of :data:`ENCODINGS`.
    track
        Key of :data:`meta_ood.metrics.component.TRACKS`, for component metrics.
    threshold
        Of the score, for component metrics; None takes the best pixel F1 on this very set, an
        oracle, and says so.
    workers
        Threads; they change nothing.

    Returns
    -------
    ``protocols``: name -> figures; ``component``, if a track was asked for.
    """
    sizes = lookup("track", component.TRACKS, track) if track else None
    curved = bool({*protocols} & {*PER_IMAGE})

    total, lock = ScoreHistogram(), threading.Lock()

    def count(pair: tuple[str, Path, Path]) -> None:
        name, score, target = pair[0], read_array(pair[1]), read_target(pair[2], encoding)
        with lock:
            total.add(score, target, name=name, curve=curved)

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        deque(progress(pool.map(count, pairs), "pixels", total=len(pairs)), maxlen=0)
        result: dict[str, Any] = {
            "protocols": {name: asdict(pixel_metrics(total, name)) for name in protocols}
        }
        if sizes is None or not total.positives:
            return result
        at = at_threshold(total, threshold) if threshold is not None else best_f1(total)
        # components are cut at score > threshold, pixels at score >= threshold
        cut = at.threshold if threshold is not None else just_below(at.threshold)

        def overlap(pair: tuple[str, Path, Path]) -> component.Overlaps:
            truth = read_target(pair[2], encoding)
            return component.of_map(read_array(pair[1]), truth, cut, *sizes)

        found = list(progress(pool.map(overlap, pairs), "components", total=len(pairs)))
    overlaps = component.Overlaps(
        np.concatenate([one.siou for one in found]), np.concatenate([one.ppv for one in found])
    )
    result["component"] = {
        "track": track,
        "threshold": cut,
        "threshold_is_oracle": threshold is None,
        "pixel_f1": at.f1,
        **asdict(component.component_metrics(overlaps)),
    }
    return result


def chosen_threshold(path: Path) -> float:
    """Return the threshold in a JSON file of figures of another set.

    Raises
    ------
    ValueError
        If there is none, or it was not chosen on that set.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["component"]
        threshold, is_chosen = float(found["threshold"]), found["threshold_is_oracle"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: expected what evaluate-maps --track TRACK --out FILE writes: {error!r}"
        ) from None
    if not is_chosen:
        raise ValueError(f"{path}: its threshold was given, not chosen on its set")
    return threshold


def maps_text(result: dict[str, Any]) -> str:
    """Return the figures of :func:`evaluate_maps` as a table for people; percent.

    Examples
    --------
    >>> one = {"auroc": 0.5, "auprc": 0.25, "fpr95": None, "frames": 3, "pixels": 10,
    ...        "positives": 2, "ignored": 1}
    >>> print(maps_text({"protocols": {"exact": one}}))
    protocol          AUROC   AUPRC   FPR95  frames       pixels    positives      ignored
    exact             50.00   25.00       –       3           10            2            1
    """
    head = ("AUROC", "AUPRC", "FPR95", "frames", "pixels", "positives", "ignored")
    lines = ["{:<15}{:>8}{:>8}{:>8}{:>8}{:>13}{:>13}{:>13}".format("protocol", *head)]
    for name, one in result["protocols"].items():
        rates = (_percent(one[key]) for key in ("auroc", "auprc", "fpr95"))
        counts = (one[key] for key in head[3:])
        lines.append("{:<15}{:>8}{:>8}{:>8}{:>8}{:>13}{:>13}{:>13}".format(name, *rates, *counts))
    if found := result.get("component"):
        oracle = " (best F1 on this very set: an oracle)" if found["threshold_is_oracle"] else ""
        rates = (_percent(found[key]) for key in ("siou", "ppv", "f1"))
        lines += [
            "",
            "components, track {}: sIoU {} PPV {} mean F1 {}".format(found["track"], *rates),
            f"at score > {found['threshold']:.6g}{oracle}; "
            f"{found['components']} components, {found['segments']} segments",
        ]
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"
