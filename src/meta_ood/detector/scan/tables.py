"""The tables of a scan: rows of one frame, their schemas, and part files.

docs/formats.md describes every column. Nothing in ``frames`` and ``segments`` depends on the machine's speed or on who
did the work, so that the part files of two runs are equal byte for byte; ``seconds`` holds the rest.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from meta_ood.data import files
from meta_ood.detector.detector import Detection
from meta_ood.detector.scan.manifest import ManifestFrame
from meta_ood.meta_classification.promise import STATISTICS, frame_statistics

KINDS = ("segments", "seconds", "frames")  # in the order of writing: with the last one a part is finished
STEPS = ("decode", "wait", "network", "segments", "pictures")  # of a frame; decoding is done beside the others

_FRAME = [("index", pa.int64()), ("sequence", pa.string()), ("time", pa.float64())]  # of both tables
_OF_STATISTICS = tuple(name.replace(" ", "_") for name in STATISTICS)  # segments, highest_severity, …
_REASON = [("feature", pa.string()), ("description", pa.string()), ("value", pa.float64()), ("log_odds", pa.float64())]
_FARTHEST = [("feature", pa.string()), ("description", pa.string()), ("deviations", pa.float64())]

FRAMES = pa.schema(
    [
        ("id", pa.string()),
        *_FRAME,
        ("height", pa.int32()),
        ("width", pa.int32()),
        (_OF_STATISTICS[0], pa.int32()),
        ("kept", pa.int32()),
        ("alarm", pa.bool_()),
        *((name, pa.float64()) for name in _OF_STATISTICS[1:]),
        ("sha256", pa.string()),
        ("error", pa.string()),
    ],
    {"format": "meta-ood scan, frames, version 1"},
)
SEGMENTS = pa.schema(
    [
        ("frame", pa.string()),
        *_FRAME,
        *((name, pa.int32()) for name in ("segment", "top", "left", "bottom", "right", "size")),
        *((name, pa.float64()) for name in ("score", "severity", "false_alarm")),
        ("kept", pa.bool_()),
        ("unlike_training", pa.bool_()),
        ("reasons", pa.list_(pa.struct(_REASON))),
        ("farthest", pa.struct(_FARTHEST)),
        ("embedding", pa.list_(pa.float32())),  # of kept segments
    ],
    {"format": "meta-ood scan, segments, version 1"},
)
SECONDS = pa.schema([("id", pa.string()), *((step, pa.float64()) for step in STEPS)])


SCHEMAS = {"frames": FRAMES, "segments": SEGMENTS, "seconds": SECONDS}


def frame_row(frame: ManifestFrame, index: int) -> dict[str, Any]:
    """Return what a row of ``frames`` says of any frame; `index` is its row in the manifest."""
    return {"id": frame.id, "index": index, "sequence": frame.sequence, "time": frame.time}


def found_columns(found: Detection) -> dict[str, Any]:
    """Return what a row of ``frames`` says of a detection."""
    segments, (height, width) = found.segments, found.labels.shape
    kept = sum(segment.kept for segment in segments)
    severity = np.array([segment.severity for segment in segments])
    row = found.table.segment_box[:, [0, 2]].mean(axis=1)
    statistics = frame_statistics(severity, found.table.segment_score, found.table.feature("S"), row).tolist()
    # without a segment there is no mean: null
    own = dict(zip(_OF_STATISTICS, statistics, strict=True)) if segments else {}
    return {**own, "segments": len(segments), "height": height, "width": width, "kept": kept, "alarm": kept > 0}


def segment_rows(frame: ManifestFrame, index: int, found: Detection) -> Iterator[dict[str, Any]]:
    """Yield the rows of ``segments`` of one frame, without their features."""
    own = {**frame_row(frame, index), "frame": frame.id}
    for number, segment in enumerate(found.segments):
        values = dict(vars(segment))
        box = dict(zip(("top", "left", "bottom", "right"), values.pop("box"), strict=True))
        if found.embeddings is not None and segment.kept:
            values["embedding"] = found.embeddings[number].tolist()
        yield {**own, **box, **values, "segment": number}


def part_path(out: Path, kind: str, number: int) -> Path:
    """Return the path of a part file; `kind` is ``frames``, ``segments`` or ``seconds``."""
    return out / kind / f"part-{number:08d}.parquet"


def write_part(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    schema: pa.Schema,
    names: Sequence[str] = (),
    features: npt.NDArray[np.float64] | None = None,
) -> None:
    """Write rows as a Parquet file, atomically; columns that a row lacks are null, keys without a column left out.

    Args:
        path: Of the file.
        rows: What the columns of `schema` hold.
        schema: One of :data:`SCHEMAS`.
        names: Of further columns.
        features: ``(number of rows, number of names)``: what these hold.
    """
    table = pa.Table.from_pylist(rows, schema)
    for name, column in zip(names, () if features is None else features.T, strict=True):
        table = table.append_column(name, pa.array(column))
    with files.replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def finished_parts(out: Path) -> list[int]:
    """Return the numbers of the parts that are complete; that of ``frames`` is written last.

    ValueError if there is another table, such as a copy of a part: all in the folder are read as one.
    """
    numbers = {path: path.stem.removeprefix("part-") for path in (out / "frames").glob("*.parquet")}
    for path, number in numbers.items():
        if not number.isdecimal():
            raise ValueError(f"{path}: expected part-<8 digits>.parquet: move it out of the scan's folder")
    return sorted(map(int, numbers.values()))
