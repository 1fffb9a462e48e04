"""Networks by PyTorch and by ONNX Runtime, in float32 and in 8 bits: seconds of CPU time an image, one thread.

python benchmarks/runtimes.py DETECTOR... [--int8 PHOTOS]. Runs of all kinds alternate, so that others on the machine
disturb them alike.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from meta_ood.detector import export
from meta_ood.detector.detector import Detector

SIZE = (512, 1024)  # [px] where the detector has none
TIMES = 5


def eager(network: torch.nn.Module, image: np.ndarray, bfloat16: bool) -> None:
    """Run a network as `infer` does."""
    pixels = torch.from_numpy(image).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        network(pixels)


def main() -> None:
    """Print the medians of each detector."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("detectors", nargs="+", type=Path)
    parser.add_argument("--int8", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for folder in given.detectors:
        detector = Detector.load(folder, "cpu")
        image = np.random.default_rng(0).random((1, 3, *(detector.settings.infer.size or SIZE)), np.float32)
        with tempfile.TemporaryDirectory() as place:
            path = Path(place, "network.onnx")
            export.export(detector.network, path, detector.settings.infer.size)
            runners = {"onnxruntime": export.onnx_runner(path, threads=1)[0]}
            if given.int8:
                target = path.with_stem("int8")
                export.quantise(detector, path, target, export.calibration_images(given.int8))
                runners["onnxruntime int8"] = export.onnx_runner(target, threads=1)[0]
            calls = {
                "eager": partial(eager, detector.network, image, bfloat16=False),
                "eager bfloat16": partial(eager, detector.network, image, bfloat16=True),
                **{name: partial(run, image) for name, run in runners.items()},
            }
            seconds: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(1 + TIMES):
                for name, call in calls.items():
                    started = time.process_time()
                    call()
                    seconds[name].append(time.process_time() - started)
        medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
        own = ", ".join(f"{name} {value:.3f} s ({value / medians['eager']:.2f})" for name, value in medians.items())
        print(f"{folder}: {own}", flush=True)


if __name__ == "__main__":
    main()
