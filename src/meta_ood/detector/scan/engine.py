"""The engine of a scan: parts of the manifest, processes that do them, and going on after any kill.

The manifest is cut into parts of a fixed number of frames. A part is done by one process, alone, and is finished once
its files are there, whole; what is finished is never done again. So the tables do not depend on the number of
processes, on who was killed and how often.
"""

import itertools
import logging
import signal
import time
import traceback
from collections import Counter, deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from threadpoolctl import threadpool_limits

from meta_ood.data import files
from meta_ood.data.context import progress
from meta_ood.data.overlays import encode_png
from meta_ood.detector.detector import SMALLEST, Detection, Detector
from meta_ood.detector.scan import tables
from meta_ood.detector.scan.manifest import ManifestFrame, frames_of, read_manifest, write_manifest
from meta_ood.detector.scan.sources import Reader
from meta_ood.segments.features import feature_names

FORMAT = "meta-ood scan, version 1"
SETTINGS, MANIFEST, PICTURES = "scan.json", "manifest.parquet", "pictures"  # in the output folder
_MOST_ENDS = 3  # a part whose process ended so often without a word, for lack of memory say, is given up
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Scan:
    """What decides the result of a scan, and where it is done."""

    out: Path
    detector: Path  # folder
    device: str = "auto"
    pictures: Literal["alarms", "all", "none"] = "none"
    features: bool = False  # the features of each segment go into its row
    frames_per_part: int = 100


def prepare(scan: Scan, manifest: pa.Table) -> Detector:
    """Write the manifest and the settings of a scan into its folder, unless the same are there; return the detector.

    ValueError if the folder holds the results of another scan.
    """
    detector = Detector.load(scan.detector, "cpu")
    settings = {
        "format": FORMAT,
        "detector": detector.identity,
        "frames_per_part": scan.frames_per_part,
        "features": scan.features,
        "pictures": scan.pictures,
    }
    path, listed = scan.out / SETTINGS, scan.out / MANIFEST
    if path.exists():
        there = files.read_json(path)
        differ = [name for name, value in settings.items() if not isinstance(there, dict) or there.get(name) != value]
        if not differ and not read_manifest(str(listed)).equals(manifest):
            differ = [f"frames ({MANIFEST})"]
        if differ:
            raise ValueError(f"{scan.out} holds a scan with other {', '.join(differ)}: choose another folder")
    else:
        write_manifest(listed, manifest)
        files.write_json(path, settings)
    return detector


def run(scan: Scan, manifest: pa.Table, workers: int, shard: tuple[int, int] = (1, 1)) -> dict[str, float]:
    """Do the parts of a prepared scan that are not finished; return seconds by step, of all processes together.

    Args:
        scan: What :func:`prepare` was called with.
        manifest: The same.
        workers: Number of processes, each with one thread.
        shard: (k, n) does the k-th of every n parts only, k = 1 … n.

    Raises:
        BlockingIOError: Another process does the same shard in this folder.
        ChildProcessError: A part ended its process three times; all others are finished.
        OSError: Results cannot be written; what is finished is kept.
    """
    k, n = shard
    seconds: Counter[str] = Counter()
    with files.running(f"the scan in {scan.out}", scan.out / f".shard-{k}-of-{n}.lock"):
        finished = set(tables.finished_parts(scan.out))
        starts = range(0, len(manifest), scan.frames_per_part)
        waiting = deque(number for number in range(k - 1, len(starts), n) if number not in finished)
        frames = sum(min(scan.frames_per_part, len(manifest) - starts[number]) for number in waiting)
        with progress((), "scan", frames, "frame") as bar, closing(_events(scan, manifest, waiting, workers)) as events:
            for done, spent in events:
                bar.update(done)
                seconds.update(spent)
    return dict(seconds)


@dataclass
class _Worker:
    """A process, the part that it does, and how many of its frames are done."""

    process: BaseProcess
    part: int = -1
    frames: int = 0


def _events(
    scan: Scan, manifest: pa.Table, waiting: deque[int], workers: int
) -> Generator[tuple[int, Mapping[str, float]], None, None]:
    """Do the parts; yield numbers of frames done (below 0: lost with their process) and seconds by step."""
    busy: dict[Connection, _Worker] = {}
    ends: Counter[int] = Counter()  # of processes, by part
    try:
        while waiting or busy:
            # 1. as many processes as there are parts to do
            while waiting and len(busy) < workers:
                pipe, worker = _started(scan)
                busy[pipe] = worker
                _give(pipe, worker, scan, manifest, waiting)
            # 2. what they say
            for ready in wait(list(busy)):
                pipe = ready  # type: ignore[assignment]
                worker = busy[pipe]
                try:
                    said = pipe.recv()
                except (EOFError, OSError):  # killed, by the kernel for its memory say: the part is done again
                    worker.process.join()
                    del busy[pipe]
                    pipe.close()
                    ends[worker.part] += 1
                    logger.warning("process of part %d ended: %s", worker.part, worker.process.exitcode)
                    if ends[worker.part] < _MOST_ENDS:
                        waiting.append(worker.part)
                    yield -worker.frames, {}
                    continue
                if isinstance(said, Exception):
                    raise said
                if isinstance(said, int):
                    worker.frames += said
                    yield said, {}
                    continue
                yield 0, said
                if waiting:
                    _give(pipe, worker, scan, manifest, waiting)
                else:
                    del busy[pipe]
                    pipe.close()  # the process ends
                    worker.process.join()
    finally:
        for pipe, worker in busy.items():
            worker.process.terminate()
            worker.process.join()
            pipe.close()
    if lost := [part for part, times in ends.items() if times >= _MOST_ENDS]:
        raise ChildProcessError(
            f"parts {', '.join(map(str, sorted(lost)))} of {scan.frames_per_part} frames ended their process "
            f"{_MOST_ENDS} times, for lack of memory perhaps; all others are finished. Fewer --workers need less"
        )


def _started(scan: Scan) -> tuple[Connection, _Worker]:
    """Start a process; it is forked from one that has imported this module and nothing else, so at once."""
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    pipe, other = context.Pipe()
    process = context.Process(target=_work, args=(scan, other), daemon=True)
    process.start()
    other.close()  # else its end would not be seen
    return pipe, _Worker(process)


def _give(pipe: Connection, worker: _Worker, scan: Scan, manifest: pa.Table, waiting: deque[int]) -> None:
    worker.part, worker.frames = waiting.popleft(), 0
    with suppress(OSError):  # it has ended: `recv` will say so
        pipe.send((worker.part, frames_of(manifest, worker.part * scan.frames_per_part, scan.frames_per_part)))


def _work(scan: Scan, pipe: Connection) -> None:
    """Do parts as they come through the pipe, until its other end is closed; say what is done, or what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the first process's affair
    with suppress(EOFError, BrokenPipeError), closing(Reader()) as reader:  # nobody there any more
        try:
            # more threads would sum in another order, and the processes are as many as there are cores
            torch.set_num_threads(1)
            threadpool_limits(1)
            detector = Detector.load(scan.detector, scan.device)
            while True:
                number, frames = pipe.recv()
                for said in _do_part(scan, detector, reader, number, frames):
                    pipe.send(said)
        except (EOFError, BrokenPipeError):
            raise
        except (OSError, ImportError) as error:
            pipe.send(error)
        except ValueError as error:
            pipe.send(ValueError(str(error)))  # not all kinds of it can be sent
        except Exception:
            pipe.send(RuntimeError(traceback.format_exc()))


def _do_part(
    scan: Scan, detector: Detector, reader: Reader, number: int, frames: Sequence[ManifestFrame]
) -> Iterator[int | Mapping[str, float]]:
    """Do a part; yield 1 after each frame, and seconds by step after the last."""
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in tables.KINDS}
    total: Counter[str] = Counter()
    for index, frame in enumerate(frames, start=number * scan.frames_per_part):
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
        tables.write_part(tables.part_path(scan.out, kind, number), rows[kind], tables.schema(kind, names))
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
