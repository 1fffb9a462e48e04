"""The manifest: a Parquet table of all frames of a scan, in their order.

Columns: ``id`` and ``source`` (texts), ``position`` (int64: where in an archive or a video, null for an image),
``sequence`` (text: frames that follow each other), ``time`` (float64 [s], null if unknown), ``error`` (text: why it
could not even be listed, null if it was).
"""

import glob
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from meta_ood.data import files
from meta_ood.detector.images import SUFFIXES as IMAGES
from meta_ood.detector.scan import sources
from meta_ood.detector.scan.sources import TARS, VIDEOS, is_remote, suffix

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("position", pa.int64()),
        ("sequence", pa.string()),
        ("time", pa.float64()),
        ("error", pa.string()),
    ]
)
_LISTS = (".txt", ".csv")
# of LostAndFound: scene_sequence_frame, so that names in their order are frames in their order
_NUMBERED = re.compile(r"(.*\b\d\d_[^/]+_\d{6})_\d{6}_leftImg8bit\.\w+$")
_BATCH = 50_000  # rows that are Python objects at one time: 20 MB


class ManifestFrame(NamedTuple):
    """A row of the manifest."""

    id: str
    source: str
    position: int | None
    sequence: str
    time: float | None
    error: str | None


def make_manifest(inputs: Sequence[str], every: int = 1) -> pa.Table:
    """Return the frames of inputs in their order, as a table of :data:`SCHEMA`.

    Args:
        inputs: Images, folders, patterns, tar archives, videos, lists of such (``.txt``, a line each; ``.csv`` with the
            column ``source`` and perhaps ``id``, ``sequence``, ``time``), or one manifest; paths or addresses.
        every: Takes every n-th frame of each sequence.

    Raises:
        FileNotFoundError: An input does not exist, or holds no frame.
        ValueError: Two frames have the same id, or a list or manifest is none; it is named.
    """
    if len(inputs) == 1 and suffix(inputs[0]) == ".parquet":
        table = read_manifest(inputs[0])
        numbers: Counter[str] = Counter()
        kept = [_is_nth(name, numbers, every) for name in table["sequence"].to_pylist()] if every > 1 else True
        return table if kept is True else table.filter(pa.array(kept))
    rows = _thinned((row for address in inputs for row in _of_input(address)), every)
    batches = []
    while some := list(itertools.islice(rows, _BATCH)):
        columns = zip(zip(*some, strict=True), SCHEMA, strict=True)
        try:
            batches.append(pa.record_batch([pa.array(column, field.type) for column, field in columns], SCHEMA))
        except UnicodeEncodeError as error:  # file systems take any bytes
            raise ValueError(f"{error.object!r}: the name is not UTF-8: rename it") from error
    if not batches:
        raise FileNotFoundError(f"no image, tar archive or video in {', '.join(inputs)}")
    return _checked(pa.Table.from_batches(batches, SCHEMA), "the inputs")


def read_manifest(address: str) -> pa.Table:
    """Return a manifest; columns but ``id`` and ``source`` may lack, others are left out. ValueError if it is none."""
    with sources.open_file(address) as file:
        try:
            table = pq.read_table(file)
            table = pa.table(
                [
                    table[name].cast(field.type).combine_chunks()
                    if (name := field.name) in table.column_names or name in ("id", "source")
                    else pa.nulls(len(table), field.type)
                    for field in SCHEMA
                ],
                SCHEMA,
            )
        except (pa.ArrowException, KeyError) as error:
            expected = "a Parquet file with the columns id, source"
            raise ValueError(f"{address}: not a manifest, expected {expected}: {error}") from error
    # frames without a sequence are those of one; writers without nulls say NaN for an unknown time
    table = table.set_column(3, SCHEMA.field(3), pc.fill_null(table["sequence"], ""))
    known = pc.if_else(pc.is_finite(table["time"]), table["time"], None)
    return _checked(table.set_column(4, SCHEMA.field(4), known), address)


def write_manifest(path: Path, table: pa.Table) -> None:
    """Write a manifest atomically."""
    with files.replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def frames_of(table: pa.Table, first: int, count: int) -> list[ManifestFrame]:
    """Return `count` rows of a manifest, fewer at its end, from row `first` on."""
    return [ManifestFrame(**row) for row in table.slice(first, count).to_pylist()]


def _checked(table: pa.Table, what: str) -> pa.Table:
    """Refuse ids that are no names of files, or occur twice."""
    ids = table["id"]
    if not len(table):
        raise ValueError(f"{what}: no frame")
    # pictures are written below the output folder
    unsafe = pc.match_substring_regex(ids, r"^/|^$|(^|/)\.\.(/|$)|[\x00-\x1f]")
    if (wrong := ids.filter(pc.fill_null(unsafe, True))).null_count or len(wrong):
        expected = "expected a relative path without .. and control characters"
        raise ValueError(f"{what}: the id {wrong[0].as_py()!r}: {expected}")
    if pc.count_distinct(ids).as_py() < len(table):
        counts = pc.value_counts(ids)
        twice = next(item["values"] for item in counts.to_pylist() if item["counts"] > 1)
        raise ValueError(f"{what}: the id {twice!r} stands for two frames: give each input once, or a list with ids")
    if table["source"].null_count:
        raise ValueError(f"{what}: a frame without source")
    # else the whole video would be read as if it were an image
    ends = "|".join(end.removeprefix(".") for end in (*TARS, *VIDEOS))
    holds_many = pc.match_substring_regex(table["source"], rf"(?i)\.({ends})$")
    lost = pc.and_(holds_many, pc.and_(pc.is_null(table["position"]), pc.is_null(table["error"])))
    if len(without := ids.filter(lost)):
        raise ValueError(f"{what}: {without[0].as_py()} is a frame of an archive or video, but has no position")
    return table


def _is_nth(sequence: str, numbers: Counter[str], every: int) -> bool:
    """Count a frame of a sequence; return whether it is the first, or `every` frames after one that was taken."""
    numbers[sequence] += 1
    return (numbers[sequence] - 1) % every == 0


def _thinned(rows: Iterable[ManifestFrame], every: int) -> Iterator[ManifestFrame]:
    """Yield every n-th frame of each sequence, and all that could not be listed."""
    numbers: Counter[str] = Counter()
    return (row for row in rows if row.error or _is_nth(row.sequence, numbers, every))


def _of_input(address: str) -> Iterator[ManifestFrame]:
    """Yield the frames of what a user gave."""
    is_there = not is_remote(address) and Path(address).exists()
    if glob.has_magic(address) and not is_there:
        found = sources.matches(address)
        if not found:
            raise FileNotFoundError(f"{address}: matches no file or folder")
        for one in found:
            yield from _of_address(one)
    elif suffix(address) in _LISTS:
        yield from _of_list(address)
    elif not is_remote(address) and not is_there:
        raise FileNotFoundError(f"{address}: no such file or folder")
    else:
        yield from _of_address(address)


def _of_address(address: str) -> Iterator[ManifestFrame]:
    """Yield the frames of a file, which is not looked for, or of a folder; what is damaged is a frame with an error."""
    kind = suffix(address)
    if kind in IMAGES:
        name = _name(address)
        yield ManifestFrame(name, address, None, _sequence(name), None, None)
    elif kind in TARS or kind in VIDEOS:
        name = _name(address)
        try:
            for part in (sources.tar_images if kind in TARS else sources.video_frames)(address):
                # the members of an archive lie in folders, the frames of a video in none
                own = f"{name}/{part.name}"
                yield ManifestFrame(own, address, part.position, _sequence(own), part.time, None)
        except (OSError, ValueError) as error:
            if sources.is_gone(address):
                raise ConnectionError(f"no answer any more: {error}") from error
            yield ManifestFrame(f"{name}/damaged", address, None, name, None, str(error))
    else:
        for file in sources.files_below(address):
            if suffix(file) in (*IMAGES, *TARS, *VIDEOS):
                yield from _of_address(file)


def _of_list(address: str) -> Iterator[ManifestFrame]:
    """Yield the frames of a list; relative paths in it are below its folder."""
    folder = address.rpartition("/")[0]
    with sources.open_file(address) as file:
        text = files.decoded(file.read(), address)
    if suffix(address) == ".txt":
        for line in filter(None, map(str.strip, text.splitlines())):
            yield from _of_address(_below(folder, line))
        return
    for row in files.csv_rows(text, address, ["source"], optional=["id", "sequence", "time"]):
        source = _below(folder, row["source"])
        name = row["id"] or _name(source)
        try:
            time = float(row["time"]) if row["time"] else None
            if time is not None and not math.isfinite(time):
                raise ValueError
        except ValueError:
            raise ValueError(f"{address}: the time {row['time']!r} of {name}: expected seconds") from None
        yield ManifestFrame(name, source, None, row["sequence"] or _sequence(name), time, None)


def _below(folder: str, path: str) -> str:
    return path if not folder or is_remote(path) or path.startswith("/") else f"{folder}/{path}"


def _sequence(name: str) -> str:
    """Return the folder of a frame; a folder of LostAndFound holds several sequences, which its names tell apart."""
    match = _NUMBERED.match(name) if "_leftImg8bit." in name else None
    return match[1] if match else name.rpartition("/")[0]


def _name(address: str) -> str:
    """Return an address as a relative path: without scheme, leading slash and ``..``."""
    path = address.partition("://")[2] or address
    if "./" in path or "//" in path or path.startswith("/"):
        path = "/".join(part for part in path.split("/") if part not in ("", ".", ".."))
    return path
