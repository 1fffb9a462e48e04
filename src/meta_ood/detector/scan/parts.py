"""What a process of a scan does: the frames of one part of the manifest, in their order, then the part's files."""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from meta_ood.data import files
from meta_ood.data.overlays import encode_png
from meta_ood.detector.detector import SMALLEST, Detection, Detector
from meta_ood.detector.scan import tables
from meta_ood.detector.scan.manifest import ManifestFrame
from meta_ood.detector.scan.sources import Reader
from meta_ood.segments.features import feature_names

PICTURES = "pictures"  # in the output folder


@dataclass(frozen=True)
class Scan:
    """What decides the result of a scan, and where it is done."""

    out: Path
    detector: Path  # folder
    device: str = "auto"
    pictures: Literal["alarms", "all", "none"] = "none"
    features: bool = False  # the features of each segment go into its row
    frames_per_part: int = 100


class Part(NamedTuple):
    """A part of the manifest."""

    number: int
    frames: Sequence[ManifestFrame]


@contextmanager
def worker(scan: Scan) -> Iterator[Callable[[Part], Iterator[int | Mapping[str, float]]]]:
    """Yield what does a part: it yields 1 after each frame, and seconds by step after the last."""
    torch.set_num_threads(1)  # more would sum in another order, and the processes are as many as there are cores
    detector = Detector.load(scan.detector, scan.device)
    with closing(Reader()) as reader:
        yield lambda part: _do_part(scan, detector, reader, part)


def _do_part(scan: Scan, detector: Detector, reader: Reader, part: Part) -> Iterator[int | Mapping[str, float]]:
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in tables.KINDS}
    total: Counter[str] = Counter()
    for index, frame in enumerate(part.frames, start=part.number * scan.frames_per_part):
        row, found, spent = _do_frame(detector, reader, frame, index)
        if found:
            started = time.perf_counter()
            if scan.pictures == "all" or (scan.pictures == "alarms" and row["alarm"]):
                write_pictures(scan.out / PICTURES, frame.id, found)
            spent["pictures"] = time.perf_counter() - started
            rows["segments"] += tables.segment_rows(frame, index, found, scan.features)
        rows["frames"].append(row)
        rows["seconds"].append({"id": frame.id, **spent})
        total.update(spent)
        yield 1
    started = time.perf_counter()
    of_classes = feature_names(len(detector.settings.class_names))
    names = (detector.classifier.feature_names if detector.classifier else of_classes) if scan.features else ()
    for kind in tables.KINDS:
        tables.write_part(tables.part_path(scan.out, kind, part.number), rows[kind], tables.schema(kind, names))
    yield {**total, "write": time.perf_counter() - started}


def _do_frame(
    detector: Detector, reader: Reader, frame: ManifestFrame, index: int
) -> tuple[dict[str, Any], Detection | None, dict[str, float]]:
    """Return the row of a frame, what was found (None if it cannot be read), and seconds by step."""
    row = tables.frame_row(frame, index)
    times = [time.perf_counter()]
    try:
        if frame.error:
            raise ValueError(frame.error)
        pixels, digest = reader(frame.source, frame.position)
        if min(pixels.shape[:2]) < SMALLEST:
            raise ValueError(f"{frame.source}: fewer than {SMALLEST} pixels each way")
    except (OSError, ValueError) as error:
        return {**row, "error": str(error)}, None, {}
    # what goes wrong from here on, such as a lack of memory, says nothing of the frame: it ends the scan
    times.append(time.perf_counter())
    prediction = detector.predict(pixels)
    times.append(time.perf_counter())
    found = detector.judge(prediction, pixels)
    row |= {**tables.found_columns(found), "sha256": digest}
    times.append(time.perf_counter())
    spent = (after - before for before, after in itertools.pairwise(times))
    return row, found, dict(zip(tables.STEPS, spent, strict=False))


def write_pictures(folder: Path, name: str, found: Detection) -> None:
    """Write the mask of what is kept (255 = OoD) and the overlay of a frame."""
    files.write_bytes(folder / f"{name}_mask.png", encode_png(found.kept_mask.astype(np.uint8) * 255))
    files.write_bytes(folder / f"{name}_overlay.png", encode_png(found.overlay()))
