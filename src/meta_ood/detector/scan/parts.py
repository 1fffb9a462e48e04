"""What a process of a scan does: the frames of one part of the manifest, in their order, then the part's files."""

import itertools
import time
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from meta_ood.data import files
from meta_ood.data.overlays import encode_png
from meta_ood.detector.detector import SMALLEST, Detection, Detector
from meta_ood.detector.scan import journal, tables
from meta_ood.detector.scan.manifest import ManifestFrame
from meta_ood.detector.scan.sources import Reader
from meta_ood.segments.features import feature_names

PICTURES, JOURNAL = "pictures", "journal"  # in the output folder


@dataclass(frozen=True)
class Scan:
    """What decides the result of a scan, and where it is done."""

    out: Path
    detector: Path  # folder
    device: str = "auto"
    pictures: Literal["alarms", "all", "none"] = "none"
    features: bool = False  # the features of each segment go into its row
    frames_per_part: int = 100
    embeddings: bool = False  # what alarms are compared by goes into their rows


class Part(NamedTuple):
    """A part of the manifest."""

    number: int
    frames: Sequence[ManifestFrame]


@contextmanager
def worker(scan: Scan) -> Iterator[Callable[[Part], Iterator[int | Mapping[str, float]]]]:
    """Yield what does a part: it yields 1 after each frame, and seconds by step after the last."""
    torch.set_num_threads(1)  # more would sum in another order, and the processes are as many as there are cores
    detector = Detector.load(scan.detector, scan.device, embed=scan.embeddings)
    with closing(Reader()) as reader:
        yield lambda part: _do_part(scan, detector, reader, part)


def _do_part(scan: Scan, detector: Detector, reader: Reader, part: Part) -> Iterator[int | Mapping[str, float]]:
    folder = scan.out / JOURNAL / f"{part.number:08d}"
    # 1. what a process has said that was killed at this part
    records = journal.read(folder)
    if records:
        yield len(records)
    # 2. the other frames
    total: Counter[str] = Counter()
    numbers = range(part.number * scan.frames_per_part, part.number * scan.frames_per_part + len(part.frames))
    with journal.appending(folder) as append:
        for index, frame in zip(numbers, part.frames, strict=True):
            if index not in records:
                records[index], spent = _do_frame(scan, detector, reader, frame, index)
                append(records[index])
                total.update(spent)
                yield 1
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


def _do_frame(
    scan: Scan, detector: Detector, reader: Reader, frame: ManifestFrame, index: int
) -> tuple[journal.Record, dict[str, float]]:
    """Return the rows of a frame, and seconds by step."""
    row = tables.frame_row(frame, index)
    times = [time.perf_counter()]
    try:
        if frame.error:
            raise ValueError(frame.error)
        pixels, digest = reader(frame.source, frame.position)
        if min(pixels.shape[:2]) < SMALLEST:
            raise ValueError(f"{frame.source}: fewer than {SMALLEST} pixels each way")
    except (OSError, ValueError) as error:
        row |= {"error": str(error)}
        return {"frames": [row], "segments": [], "features": "", "seconds": [{"id": frame.id}]}, {}
    # what goes wrong from here on, such as a lack of memory, says nothing of the frame: it ends the scan
    times.append(time.perf_counter())
    prediction = detector.predict(pixels)
    times.append(time.perf_counter())
    found = detector.judge(prediction, pixels)
    row |= {**tables.found_columns(found), "sha256": digest}
    segments = list(tables.segment_rows(frame, index, found))
    # as bytes: a tenth of the time of their digits
    features = b64encode(found.table.features.tobytes() if scan.features else b"").decode()
    times.append(time.perf_counter())
    if scan.pictures == "all" or (scan.pictures == "alarms" and row["alarm"]):
        write_pictures(scan.out / PICTURES, frame.id, found)
    times.append(time.perf_counter())
    steps = (after - before for before, after in itertools.pairwise(times))
    spent = dict(zip(tables.STEPS, steps, strict=True))
    times_row = {"id": frame.id, **spent}
    return {"frames": [row], "segments": segments, "features": features, "seconds": [times_row]}, spent


def write_pictures(folder: Path, name: str, found: Detection) -> None:
    """Write the mask of what is kept (255 = OoD) and the overlay of a frame."""
    files.write_bytes(folder / f"{name}_mask.png", encode_png(found.kept_mask.astype(np.uint8) * 255))
    files.write_bytes(folder / f"{name}_overlay.png", encode_png(found.overlay()))
