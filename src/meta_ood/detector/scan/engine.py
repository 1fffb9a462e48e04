"""The engine of a scan: parts of the manifest, processes that do them, and going on after any kill.

The manifest is cut into parts of a fixed number of frames. A part is done by one process, alone, and is finished once
its files are there, whole; what is finished is never done again. So the tables do not depend on the number of
processes, on who was killed and how often.
"""

from collections import Counter
from contextlib import closing

import pyarrow as pa
import pyarrow.compute as pc

from meta_ood.data import files
from meta_ood.data.context import Machine, progress
from meta_ood.data.workers import Item, Job, distribute
from meta_ood.detector.detector import Detector
from meta_ood.detector.scan import journal, tables
from meta_ood.detector.scan.manifest import frames_of, read_manifest, write_manifest
from meta_ood.detector.scan.parts import JOURNAL, Part, worker
from meta_ood.detector.scan.task import NETWORK, Scan, prepare_network, torch_detector

FORMAT = "meta-ood scan, version 1"
SETTINGS, MANIFEST = "scan.json", "manifest.parquet"  # in the output folder
_LONGEST = 220  # bytes of a frame's name that become that of a picture: file systems take 255, with what is added to it


def prepare(scan: Scan, manifest: pa.Table) -> Detector:
    """Write the manifest and the settings of a scan into its folder, unless the same are there; return the detector.

    ValueError if the folder holds the results of another scan, or pictures cannot have the names of their frames.
    """
    names = pc.binary_length(pc.replace_substring_regex(manifest["id"], ".*/", ""))
    if scan.pictures != "none" and len(too_long := manifest["id"].filter(pc.greater(names, _LONGEST))):
        what = f"the name of {too_long[0].as_py()!r} is longer than {_LONGEST} bytes"
        raise ValueError(f"--pictures: {what}: give a list with shorter ids, or none of pictures")
    detector = torch_detector(scan, "cpu")
    settings = {
        "format": FORMAT,
        "detector": detector.identity,
        "frames_per_part": scan.frames_per_part,
        "features": scan.features,
        "embeddings": scan.embeddings,
        "pictures": scan.pictures,
        "runtime": "torch" if scan.runtime == "torch" else "onnx",
    }
    path, listed = scan.out / SETTINGS, scan.out / MANIFEST
    if path.exists():
        read = files.read_json(path)
        there = read if isinstance(read, dict) else {}
        differ = [name for name, value in settings.items() if there.get(name) != value]
        if not differ and not read_manifest(str(listed)).equals(manifest):
            differ = [f"frames ({MANIFEST})"]
        if not differ and there.get("network") != prepare_network(scan, detector):
            differ = [f"network ({NETWORK})"]
        if differ:
            raise ValueError(f"{scan.out} holds a scan with other {', '.join(differ)}: choose another folder")
    elif (scan.out / JOURNAL).exists() or tables.finished_parts(scan.out):
        raise ValueError(f"{scan.out} holds a scan whose settings ({SETTINGS}) are lost: choose another folder")
    else:
        settings["network"] = prepare_network(scan, detector)
        write_manifest(listed, manifest)
        files.write_json(path, settings)
    return detector


def run(scan: Scan, manifest: pa.Table, machine: Machine, shard: tuple[int, int] = (1, 1)) -> dict[str, float]:
    """Do the parts of a prepared scan that are not finished; return seconds by step, of all processes together.

    Args:
        scan: What :func:`prepare` was called with.
        manifest: The same.
        machine: Number of processes, each with one thread, and the engine that starts them.
        shard: (k, n) does the k-th of every n parts only, k = 1 … n.

    Raises:
        BlockingIOError: Another process does the same shard in this folder.
        ChildProcessError: A part ended its process again and again; all others are finished.
        OSError: Results cannot be written; what is finished is kept.
    """
    k, n = shard
    seconds: Counter[str] = Counter()
    with files.running(f"the scan in {scan.out}", scan.out / f".shard-{k}-of-{n}.lock"):
        finished = set(tables.finished_parts(scan.out))
        starts = range(0, len(manifest), scan.frames_per_part)
        waiting = [number for number in range(k - 1, len(starts), n) if number not in finished]
        frames = sum(min(scan.frames_per_part, len(manifest) - starts[number]) for number in waiting)
        parts = (
            Item(f"part {number}", Part(number, frames_of(manifest, starts[number], scan.frames_per_part)))
            for number in waiting
        )
        events = distribute(Job(worker, (scan,)), parts, machine)
        with progress((), "scan", frames, "frame") as bar, closing(events):
            for done, spent in events:
                bar.update(done)
                seconds.update(spent or {})
        # of a process that was killed between the last file of a part and the end of its journal
        names = {f"{number:08d}" for number in tables.finished_parts(scan.out)}
        journal.remove(folder for folder in (scan.out / JOURNAL).glob("*") if folder.name in names)
    return dict(seconds)
