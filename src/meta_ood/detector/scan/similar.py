"""The alarms of a scan that are nearest to one, and groups of alarms that are alike.

Distances are those of embeddings (see :class:`meta_ood.detector.detector.Detection`), each number of them standardised
over the alarms of the scan: 1 - the cosine of the angle between two, in [0, 2]; 1 = nothing in common.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from meta_ood.data.predictions import FloatMap
from meta_ood.data.registry import known_names
from meta_ood.detector.scan import tables
from meta_ood.detector.scan.summary import ALARM
from meta_ood.detector.scan.tracks import TRACKS_FILE
from meta_ood.meta_classification.features import Scaling

Labels = npt.NDArray[np.int64]
COMPONENTS = 16  # principal ones that groups are looked for in


@dataclass(frozen=True)
class Alarms:
    """The alarms of a scan, in the order of frames and segments, and their unit vectors."""

    table: pa.Table  # N rows, columns summary.ALARM and track
    vectors: FloatMap  # (N, F) float32

    def row(self, number: int) -> dict[str, Any]:
        """Return an alarm; its ``name`` is that of :meth:`find`."""
        (row,) = self.table.slice(number, 1).to_pylist()
        return {"name": f"{row['frame']}:{row['segment']}", **row}

    def find(self, name: str) -> int:
        """Return the number of the alarm ``frame:segment``; a ValueError says which ones there are."""
        frame, _, segment = name.rpartition(":")
        numbers = pc.indices_nonzero(pc.equal(self.table["frame"], frame)).to_pylist()
        here = {str(self.table["segment"][number].as_py()): number for number in numbers}
        if not here:
            # ids of a long drive would fill the screen: the guess alone
            meant = known_names(frame, pc.unique(self.table["frame"]).to_pylist()).partition("; ")[2]
            expected = "expected FRAME:SEGMENT, as in the columns frame and segment of segments"
            raise ValueError(f"no alarm {name!r}: {meant or expected}")
        if segment not in here:
            raise ValueError(f"no alarm {name!r}; those of this frame: {', '.join(here)}")
        return int(here[segment])

    def distances(self, number: int) -> FloatMap:
        """Return ``(N,)`` distances to an alarm."""
        distances: FloatMap = 1 - self.vectors @ self.vectors[number]
        return distances

    def nearest(self, number: int) -> Iterator[tuple[int, float]]:
        """Yield the nearest alarm of each other track and its distance, the nearest first."""
        distances = self.distances(number)
        tracks = list(zip(self.table["sequence"].to_pylist(), self.table["track"].to_pylist(), strict=True))
        taken = {tracks[number]}
        for other in np.argsort(distances, kind="stable").tolist():
            if tracks[other] not in taken:
                taken.add(tracks[other])
                yield other, float(distances[other])

    def groups(self, least: int) -> Labels:
        """Return ``(N,)`` the group of each alarm, from 1, the largest first; 0 where it is like too few others.

        HDBSCAN (Campello et al. 2013), which finds the number of groups itself: at least `least` alarms that lie
        closer to each other than to the rest; by the principal components alone, in which it is many times faster. Its
        memory grows with N, its time with the square of N.
        """
        from sklearn.cluster import HDBSCAN
        from sklearn.decomposition import PCA

        if len(self.vectors) < 2 * least:  # there are no two groups
            return np.zeros(len(self.vectors), np.int64)
        # the squares of Euclidean distances of unit vectors are twice these
        parts = PCA(min(COMPONENTS, *self.vectors.shape), svd_solver="covariance_eigh").fit_transform(self.vectors)
        found = HDBSCAN(least, algorithm="kd_tree", copy=True).fit_predict(parts)
        labels, first, sizes = np.unique(found, return_index=True, return_counts=True)
        order = np.lexsort((first, -sizes))
        numbers = dict(zip(labels[order][labels[order] >= 0].tolist(), range(1, len(labels) + 1), strict=False))
        return np.array([numbers.get(label, 0) for label in found.tolist()], np.int64)


def read_alarms(out: Path) -> Alarms:
    """Read the alarms of a scan; ValueError if there is none, or it was made without ``--embeddings``."""
    if not (out / TRACKS_FILE).exists():
        raise ValueError(f"{out}: not finished, there are no tracks yet: run `meta-ood scan` again")
    # 1. the rows of temporal are those of segments
    parts = []
    for number in tables.finished_parts(out):
        columns = {"columns": [*ALARM, "kept", "embedding"], "schema": tables.SEGMENTS}
        segments = pq.read_table(tables.part_path(out, "segments", number), **columns)
        track = pq.read_table(tables.part_path(out, "temporal", number), columns=["track"])["track"]
        parts.append(segments.append_column("track", track).filter(segments["kept"]).drop_columns("kept"))
    found = pa.concat_tables(parts)
    if not len(found):
        raise ValueError(f"{out}: no alarm")
    found = found.sort_by([("index", "ascending"), ("segment", "ascending")])
    embedding = found["embedding"].combine_chunks()
    if embedding.null_count:
        raise ValueError(f"{out}: no embeddings of alarms: scan with --embeddings, into another folder")
    # 2. standardised, of length 1
    raw = embedding.flatten().to_numpy().reshape(len(found), -1)
    scaled = Scaling.of(raw.astype(np.float64))(raw)
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    return Alarms(found.drop_columns("embedding"), (scaled / np.maximum(length, 1e-12)).astype(np.float32))


def describe_groups(alarms: Alarms, groups: Labels) -> Iterator[dict[str, Any]]:
    """Yield counts and means of each group, the largest first.

    ``typical`` is the alarm nearest to the mean of the group, ``farthest`` the one least like it.
    """
    for group in range(1, int(groups.max(initial=0)) + 1):
        members = np.flatnonzero(groups == group)
        table, vectors = alarms.table.take(pa.array(members)), alarms.vectors[members]
        likeness = vectors @ vectors.mean(axis=0)
        yield {
            "group": group,
            "alarms": len(members),
            "frames": pc.count_distinct(table["frame"]).as_py(),
            "sequences": pc.count_distinct(table["sequence"]).as_py(),
            "tracks": len(table.group_by(["sequence", "track"]).aggregate([])),
            "severity": pc.mean(table["severity"]).as_py(),
            "size": pc.mean(table["size"]).as_py(),
            "typical": alarms.row(int(members[likeness.argmax()])),
            "farthest": alarms.row(int(members[likeness.argmin()])),
        }
