"""A video of a finished scan: its frames, read again, with the boxes of the tracks that are alarms."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

from meta_ood.data import files
from meta_ood.data.context import progress
from meta_ood.data.overlays import KEPT
from meta_ood.detector.scan import tables
from meta_ood.detector.scan.engine import MANIFEST
from meta_ood.detector.scan.manifest import ManifestFrame, frames_of, read_manifest
from meta_ood.detector.scan.parts import PICTURES
from meta_ood.detector.scan.sources import Reader
from meta_ood.detector.scan.tracks import SIDES, TRACKS_FILE

VIDEO = "alarms.mp4"
_LARGEST = 1280, 720  # [px] width and height: frames are scaled to fit in
_UNKNOWN_RATE = 10  # frames a second where the manifest has no times, or a frame in half an hour
_LINE, _FONT = 2, 14  # [px] of boxes, of texts

Boxes = Sequence[dict[str, Any]]  # of one frame: the sides [px], track, highest_severity, alarm (whether it is one yet)


def write_video(out: Path) -> Path | None:
    """Write the frames of a scan with its alarms, in the order of the manifest, as an MP4 file (H.264).

    The box of a track is drawn from its alarm on, with its number and its highest severity so far, other kept segments
    with a thin white box; kept pixels are orange where the scan wrote masks. Frames that cannot be read any more are
    left out; None if there is no other.

    Raises:
        ImportError: PyAV (extra ``video``) is not installed.
    """
    import av

    manifest = read_manifest(str(out / MANIFEST))
    # 1. the size is that of the first frame; H.264 halves the resolution of colours: even numbers only
    shown = iter(progress(_shown(out, manifest), "video", len(manifest)))
    first = next(shown, None)
    if first is None:
        return None
    scale = min(_LARGEST[0] / first[1].width, _LARGEST[1] / first[1].height)
    width, height = (max(2, 2 * round(side * scale / 2)) for side in first[1].size)
    # 2. the rate is that of most frames
    steps = np.diff(manifest["time"].to_numpy().astype(np.float64))
    known = steps[steps > 0]  # from one sequence to the next it falls
    rate = Fraction(1 / float(np.median(known)) if len(known) else 0).limit_denominator(1000) or Fraction(_UNKNOWN_RATE)
    with files.replacing(out / VIDEO) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"  # what browsers play
        for frame, whole, boxes in itertools.chain([first], shown):
            picture = _picture(whole, boxes, frame, (width, height))
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    return out / VIDEO


def _shown(out: Path, manifest: pa.Table) -> Iterator[tuple[ManifestFrame, Image.Image, Boxes]]:
    """Yield the frames that can be read, kept pixels orange where there is a mask, with the boxes of alarms."""
    # 1. from which frame on which tracks are drawn
    columns = ["sequence", "track", "alarm_index"]
    alarms = pq.read_table(out / TRACKS_FILE, columns=columns, filters=pc.field("alarm")).to_pylist()
    since = {(row["sequence"], row["track"]): row["alarm_index"] for row in alarms}
    with closing(Reader()) as reader:
        done = 0
        for part in tables.finished_parts(out):
            # 2. the boxes of this part; rows of `temporal` are those of `segments`
            columns = ["index", "sequence", "kept", *SIDES]
            segments = pq.read_table(tables.part_path(out, "segments", part), columns=columns)
            temporal = pq.read_table(tables.part_path(out, "temporal", part), columns=["track", "highest_severity"])
            boxes: dict[int, list[dict[str, Any]]] = defaultdict(list)
            for box, own in zip(segments.to_pylist(), temporal.to_pylist(), strict=True):
                is_alarm = box["index"] >= since.get((box["sequence"], own["track"]), len(manifest))
                if is_alarm or box["kept"]:
                    boxes[box["index"]].append({**box, **own, "alarm": is_alarm})
            # 3. its frames
            count = pq.read_metadata(tables.part_path(out, "frames", part)).num_rows
            for index, frame in enumerate(frames_of(manifest, done, count), start=done):
                try:
                    pixels, _ = reader(frame.source, frame.position)
                except (OSError, ValueError):
                    continue
                mask = out / PICTURES / f"{frame.id}_mask.png"
                if mask.is_file():
                    kept = np.asarray(Image.open(mask)) > 0
                    pixels[kept] = (pixels[kept].astype(np.uint16) + KEPT) // 2
                yield frame, Image.fromarray(pixels), boxes[index]
            done += count


def _picture(whole: Image.Image, boxes: Boxes, frame: ManifestFrame, size: tuple[int, int]) -> Image.Image:
    """Return a frame as it is in the video; one of another shape gets black edges."""
    picture = Image.new("RGB", size)
    scale = min(size[0] / whole.width, size[1] / whole.height)
    inner = max(1, round(whole.width * scale)), max(1, round(whole.height * scale))
    x, y = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    picture.paste(whole.resize(inner), (x, y))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(_FONT)
    for box in boxes:
        top, left, bottom, right = (round(scale * box[side]) for side in SIDES)
        edges = x + left - _LINE, y + top - _LINE, x + right + _LINE - 1, y + bottom + _LINE - 1
        draw.rectangle(edges, outline=KEPT if box["alarm"] else "white", width=_LINE if box["alarm"] else 1)
        if not box["alarm"]:
            continue
        text, above = f"{box['track']}: {box['highest_severity']:.2g}", max(edges[1] - _FONT - 4, 0)
        draw.rectangle(draw.textbbox((edges[0] + 2, above), text, font), fill="black")
        draw.text((edges[0] + 2, above), text, KEPT, font)
    when = "" if frame.time is None else f", {frame.time:.1f} s"
    draw.text((4, size[1] - _FONT - 4), f"{frame.id}{when}", "white", font, stroke_width=1, stroke_fill="black")
    return picture
