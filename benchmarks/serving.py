"""Latency and throughput of a served detector, over HTTP on loopback.

    python benchmarks/serving.py models:/deeplabv3plus_mini@champion

Starts the server of docs/serve.md, sends it a bounded number of requests, stops it. The limit is the same detector
in this process: what HTTP, base64 and PNG cost is the rest. With the predictions of the pipeline (data/infer) every
mask is compared with the pipeline's.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
from PIL import Image

from meta_ood.data.frames import read_frames
from meta_ood.data.images import read_image
from meta_ood.data.prediction_files import open_predictions
from meta_ood.scores import SCORES
from meta_ood.segments import predicted_ood


@contextmanager
def server(model: str, seconds: float = 180.0):
    """Yield the address of a server of `model` and the seconds until its first answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "meta_ood", "serve", model]
    begin = time.perf_counter()
    process = subprocess.Popen([*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        while True:
            try:
                with urllib.request.urlopen(f"{address}/ping", timeout=5):
                    break
            except OSError:
                if process.poll() is not None or time.perf_counter() - begin > seconds:
                    raise SystemExit(f"{' '.join(command)} does not answer") from None
                time.sleep(0.1)
        yield address, time.perf_counter() - begin
    finally:
        process.terminate()
        process.wait()


def ask(address: str, images: list[str], maps: bool = True) -> tuple[float, list[dict]]:
    """Return seconds and answers of one request."""
    table = {"columns": ["image"], "data": [[image] for image in images]}
    body = json.dumps({"dataframe_split": table, "params": {"maps": maps}}).encode()
    headers = {"Content-Type": "application/json"}
    begin = time.perf_counter()
    request = urllib.request.Request(f"{address}/invocations", body, headers)
    with urllib.request.urlopen(request, timeout=600) as answer:
        found = answer.read()
    return time.perf_counter() - begin, json.loads(found)["predictions"]


def times(call, images: list) -> list[float]:
    """Return the seconds of `call` for each image, after one to warm up."""
    call(images[0])
    seconds = []
    for image in images:
        begin = time.perf_counter()
        call(image)
        seconds.append(time.perf_counter() - begin)
    return seconds


def measure(address: str, detector, pictures: list[np.ndarray], batch: int) -> None:
    """Print the rows of one size."""
    texts = [encoded(picture) for picture in pictures]
    height, width = pictures[0].shape[:2]
    alone = times(detector, pictures)
    rows = {"in this process, no HTTP": alone}
    rows["served, with maps"] = times(lambda text: ask(address, [text]), texts)
    rows["served, segments only"] = times(lambda text: ask(address, [text], maps=False), texts)
    limit = statistics.median(alone)
    print(f"\n{height} x {width}, {len(pictures)} requests, {len(texts[0]) / 1e6:.2f} MB each")
    print(f"  {'':26} {'p50 [ms]':>9} {'p95 [ms]':>9} {'images/s':>9} {'of the limit':>13}")
    for name, seconds in rows.items():
        median, high = statistics.median(seconds), float(np.quantile(seconds, 0.95))
        print(
            f"  {name:26} {median * 1e3:9.1f} {high * 1e3:9.1f} {1 / statistics.mean(seconds):9.2f}"
            f" {limit / median:12.0%}"
        )
    begin = time.perf_counter()
    with ThreadPoolExecutor(2) as clients:
        list(clients.map(lambda text: ask(address, [text]), texts))
    rate = len(texts) / (time.perf_counter() - begin)
    print(f"  {'two clients, with maps':46} {rate:9.2f} {rate * limit:12.0%}")
    seconds, _ = ask(address, texts[:batch])
    rate = len(texts[:batch]) / seconds
    print(f"  {f'{len(texts[:batch])} images in one request':46} {rate:9.2f} {rate * limit:12.0%}")


def compare(address: str, settings, frames, infer: Path) -> None:
    """Print how many masks are those of the pipeline's stored predictions."""
    stored = {prediction.image_id: prediction for prediction in open_predictions(infer)}
    same = 0
    for frame in frames:
        _, (answer,) = ask(address, [base64.b64encode(frame.image.read_bytes()).decode()])
        mask = np.array(Image.open(io.BytesIO(base64.b64decode(answer["mask"])))) == 255
        score = SCORES[settings.score](stored[frame.image_id])
        same += np.array_equal(mask, predicted_ood(score, settings.threshold))
    print(f"\nmasks equal to the pipeline's in {infer}: {same} of {len(frames)} frames")


def encoded(picture: np.ndarray) -> str:
    """Return a picture as base64 PNG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def main() -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="models:/deeplabv3plus_mini@champion")
    parser.add_argument("--frames", type=Path, default=Path("data/prepare/lost_and_found"))
    parser.add_argument("--infer", type=Path, help="predictions of the same weights and frames")
    parser.add_argument("--requests", type=int, nargs=2, default=(40, 6), help="small, large")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # MLflow's own
    if "MLFLOW_TRACKING_URI" not in os.environ:
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path.cwd()}/mlflow.db"
    detector = mlflow.pyfunc.load_model(options.model).unwrap_python_model().detector
    frames = read_frames(options.frames, Path.cwd())
    small, large = options.requests
    with server(options.model) as (address, seconds):
        print(f"{options.model}: answers {seconds:.1f} s after its start")
        pictures = [read_image(frame.image) for frame in frames[:small]]
        measure(address, detector, pictures, batch=8)
        wide = [np.array(Image.fromarray(p).resize((2048, 1024), 3)) for p in pictures[:large]]
        measure(address, detector, wide, batch=4)
        if options.infer:
            compare(address, detector.settings, frames, options.infer)


if __name__ == "__main__":
    main()
