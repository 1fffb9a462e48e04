"""A scan's settings, and the detector that it runs: its network by PyTorch, or by ONNX Runtime from one file."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from meta_ood.config.schema import Precision
from meta_ood.data import files
from meta_ood.detector import export
from meta_ood.detector.detector import Detector
from meta_ood.detector.folder import WEIGHTS

NETWORK = "network.onnx"  # in the output folder


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
    runtime: str = "torch"  # or "onnx", or an ONNX file of the detector's network
    precision: Precision | None = None  # None: the detector's
    batch_size: int | None = None


def torch_detector(scan: Scan, device: str) -> Detector:
    """Return the detector of a scan with its precision and batch size, and the network of its folder."""
    precision = scan.precision
    if scan.runtime != "torch":
        if scan.device == "cuda" or precision not in (None, "float32"):
            raise ValueError(
                "ONNX Runtime computes on the CPU in its file's precision: leave out --device and --precision"
            )
        precision, device = "float32", "cpu"
    wanted = {"precision": precision, "batch_size": scan.batch_size}
    infer = {name: value for name, value in wanted.items() if value}
    return Detector.load(scan.detector, device, embed=scan.embeddings, infer=infer)


def prepare_network(scan: Scan, detector: Detector) -> str | None:
    """Put the file that computes the network in all processes into the scan's folder; return its hash.

    None for PyTorch. The file is made of the detector's network and checked against it, or a copy of what the user
    gave; one that is there already stays.
    """
    if scan.runtime == "torch":
        return None
    path, given = scan.out / NETWORK, Path(scan.runtime)
    if scan.runtime == "onnx":
        if not path.exists():
            size, unchecked = detector.settings.infer.size, path.with_stem("unchecked")
            run = export.export(detector.network, unchecked, size, detector.settings.files[WEIGHTS])
            export.check(detector.network, run, size)
            unchecked.replace(path)
        given = path
    export.with_onnx(detector, given, scan.embeddings)  # refuses one of another network
    if not path.exists():
        with files.replacing(path) as temporary:
            shutil.copyfile(given, temporary)
    return files.file_hash(given)


def scan_detector(scan: Scan) -> Detector:
    """Return the detector that the processes of a prepared scan apply."""
    detector = torch_detector(scan, scan.device)
    return detector if scan.runtime == "torch" else export.with_onnx(detector, scan.out / NETWORK, scan.embeddings)
