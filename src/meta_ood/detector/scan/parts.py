"""What a process of a scan does: the frames of one part of the manifest, in their order, then the part's files."""

import itertools
import time
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from meta_ood.data import files
from meta_ood.data.images import RgbImage
from meta_ood.data.overlays import encode_png
from meta_ood.data.predictions import Prediction
from meta_ood.detector.detector import SMALLEST, Detection, Detector
from meta_ood.detector.scan import journal, tables
from meta_ood.detector.scan.manifest import ManifestFrame
from meta_ood.detector.scan.sources import Reader
from meta_ood.detector.scan.task import Scan, scan_detector
from meta_ood.inference.batches import call_ahead
from meta_ood.segments.features import feature_names

PICTURES, JOURNAL = "pictures", "journal"  # in the output folder
_AHEAD = 2  # batches that are read early


class Part(NamedTuple):
    """A part of the manifest."""

    number: int
    frames: Sequence[ManifestFrame]


@dataclass(frozen=True)
class _Read:
    """A frame that has been read, or could not be."""

    number: int  # row of the manifest
    frame: ManifestFrame
    pixels: RgbImage  # none at all if it could not
    digest: str
    error: str
    seconds: float


@contextmanager
def worker(scan: Scan) -> Iterator[Callable[[Part], Iterator[int | Mapping[str, float]]]]:
    """Yield what does a part: it yields 1 after each frame, and seconds by step after the last."""
    torch.set_num_threads(1)  # more would sum in another order, and the processes are as many as there are cores
    detector = scan_detector(scan)
    # one thread reads for all parts: fsspec opens a connection for each thread, and never closes it
    with closing(Reader()) as reader, ThreadPoolExecutor(1) as pool:
        yield lambda part: _do_part(scan, detector, reader, pool, part)


def _do_part(
    scan: Scan, detector: Detector, reader: Reader, pool: Executor, part: Part
) -> Iterator[int | Mapping[str, float]]:
    folder = scan.out / JOURNAL / f"{part.number:08d}"
    # 1. what processes have finished that were killed at this part
    records = journal.read(folder)
    if records:
        yield len(records)
    # 2. the other frames. Batches begin at fixed frames, so that the bits do not depend on kills
    total: Counter[str] = Counter()
    numbers = range(part.number * scan.frames_per_part, part.number * scan.frames_per_part + len(part.frames))
    size = detector.settings.infer.batch_size
    batches = (numbers[first : first + size] for first in range(0, len(numbers), size))
    waiting = (batch for batch in batches if any(index not in records for index in batch))

    def read(batch: range) -> list[_Read]:
        return [_read(reader, index, part.frames[index - numbers.start]) for index in batch]

    decoded = call_ahead(pool, read, waiting, _AHEAD)
    with journal.appending(folder) as append, closing(decoded):
        started = time.perf_counter()
        for batch in decoded:
            waited = (time.perf_counter() - started) / len(batch)
            for frame, (record, spent) in zip(batch, _do_batch(scan, detector, batch, waited), strict=True):
                total.update(spent)
                if frame.number not in records:
                    records[frame.number] = record
                    append(record)
                    yield 1
            started = time.perf_counter()
    # 3. the files of the part
    started = time.perf_counter()
    of_classes = feature_names(len(detector.settings.class_names))
    names = (detector.classifier.feature_names if detector.classifier else of_classes) if scan.features else ()
    features = np.frombuffer(b"".join(b64decode(records[index]["features"]) for index in numbers))
    further = {"segments": (names, features.reshape(-1, len(names)))} if names else {}
    for kind in tables.KINDS:
        rows = [row for index in numbers for row in records[index][kind]]
        path = tables.part_path(scan.out, kind, part.number)
        tables.write_part(path, rows, tables.SCHEMAS[kind], *further.get(kind, ()))
    journal.remove([folder])
    yield {**total, "write": time.perf_counter() - started}


def _read(reader: Reader, index: int, frame: ManifestFrame) -> _Read:
    started = time.perf_counter()
    try:
        if frame.error:
            raise ValueError(frame.error)
        pixels, digest = reader(frame.source, frame.position)
        if min(pixels.shape[:2]) < SMALLEST:
            raise ValueError(f"{frame.source}: fewer than {SMALLEST} pixels each way")
        error = ""
    except ConnectionError:  # says nothing of the frame: it ends the scan
        raise
    except (OSError, ValueError) as why:
        pixels, digest, error = np.zeros((0, 0, 3), np.uint8), "", str(why)
    return _Read(index, frame, pixels, digest, error, time.perf_counter() - started)


def _do_batch(
    scan: Scan, detector: Detector, batch: Sequence[_Read], waited: float
) -> Iterator[tuple[journal.Record, dict[str, float]]]:
    """Yield rows and seconds by step of each frame; neighbours of one size go through the network together."""
    for _, neighbours in itertools.groupby(batch, lambda read: read.pixels.shape):
        group = list(neighbours)
        # what goes wrong from here on, such as a lack of memory, says nothing of a frame: it ends the scan
        started = time.perf_counter()
        images = [read.pixels for read in group if not read.error]
        predictions: list[Any] = detector.predict_together(images) if images else [None] * len(group)
        network = (time.perf_counter() - started) / len(group)
        for read, prediction in zip(group, predictions, strict=True):
            yield _do_frame(
                scan, detector, read, prediction, {"decode": read.seconds, "wait": waited, "network": network}
            )


def _do_frame(
    scan: Scan, detector: Detector, read: _Read, prediction: Prediction | None, spent: dict[str, float]
) -> tuple[journal.Record, dict[str, float]]:
    """Return the rows of a frame, and seconds by step: those `spent`, and those of what is done here."""
    row = tables.frame_row(read.frame, read.number)
    if prediction is None:
        row |= {"error": read.error}
        return {"frames": [row], "segments": [], "features": "", "seconds": [{"id": read.frame.id}]}, spent
    times = [time.perf_counter()]
    found = detector.judge(prediction, read.pixels)
    row |= {**tables.found_columns(found), "sha256": read.digest}
    segments = list(tables.segment_rows(read.frame, read.number, found))
    # as bytes: a tenth of the time of their digits
    features = b64encode(found.table.features.tobytes() if scan.features else b"").decode()
    times.append(time.perf_counter())
    if scan.pictures == "all" or (scan.pictures == "alarms" and row["alarm"]):
        write_pictures(scan.out / PICTURES, read.frame.id, found)
    times.append(time.perf_counter())
    spent |= {"segments": times[1] - times[0], "pictures": times[2] - times[1]}
    times_row = {"id": read.frame.id, **spent}
    return {"frames": [row], "segments": segments, "features": features, "seconds": [times_row]}, spent


def write_pictures(folder: Path, name: str, found: Detection) -> None:
    """Write the mask of what is kept (255 = OoD) and the overlay of a frame."""
    files.write_bytes(folder / f"{name}_mask.png", encode_png(found.kept_mask.astype(np.uint8) * 255))
    files.write_bytes(folder / f"{name}_overlay.png", encode_png(found.overlay()))
