"""For .ci/without_repository: what a served model must answer, by the pipeline's own files.

``prepare MODEL FOLDER`` puts the model, a frame of the demo and what the pipeline found in it into a folder; ``compare
ADDRESS FOLDER`` asks the server at an address for that frame and compares.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import sys
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

DATASET = "lost_and_found"


def prepare(model: str, folder: Path) -> None:
    """Write model, frame.png, expected.json, mask.png and the version of mlflow into `folder`."""
    import mlflow

    from meta_ood import Detector
    from meta_ood.data.files import write_json, write_text
    from meta_ood.data.frames import read_frames
    from meta_ood.data.labels import IGNORE
    from meta_ood.data.prediction_files import open_predictions
    from meta_ood.scores import find_score, pixel_maps
    from meta_ood.segments import predicted_ood
    from meta_ood.tracking import location

    mlflow.set_tracking_uri(location.store_uri(Path.cwd()))
    mlflow.artifacts.download_artifacts(model, dst_path=str(folder / "model"))
    # 1. what this repository's detector finds, with probabilities, decisions and reasons
    (artifact,) = (folder / "model/artifacts").iterdir()
    detector = Detector.load(artifact, "cpu")
    frame = read_frames(Path("data/prepare", DATASET), Path.cwd())[0]
    found = detector(frame.image).to_dict()["segments"]
    # 2. what the stage `infer` stored of the same frame, outside void, where the stages find nothing
    own = detector.settings
    folder_of = Path("data/infer", own.network, own.variant, DATASET)
    prediction = next(one for one in open_predictions(folder_of) if one.image_id == frame.image_id)
    score = find_score(own.score)
    mask = predicted_ood(score(pixel_maps(prediction, score.needs)), own.threshold)
    Image.fromarray(np.where(prediction.target == IGNORE, 128, mask * 255).astype(np.uint8)).save(folder / "mask.png")
    shutil.copy(frame.image, folder / "frame.png")
    write_json(folder / "expected.json", found)
    write_text(folder / "mlflow", mlflow.__version__)


def compare(address: str, folder: Path) -> None:
    """Ask the server for frame.png; exit with a message if the answer is not the expected one."""
    text = base64.b64encode((folder / "frame.png").read_bytes()).decode()
    body = json.dumps({"inputs": {"image": [text]}}).encode()
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        (answer,) = json.load(response)["predictions"]
    segments = answer["segments"]
    if segments != json.loads((folder / "expected.json").read_text(encoding="utf-8")):
        sys.exit("the served segments differ from those of the detector in this repository")
    expected = np.array(Image.open(folder / "mask.png"))
    served = np.array(Image.open(io.BytesIO(base64.b64decode(answer["mask"]))))
    if not np.array_equal(served[expected != 128], expected[expected != 128]):
        sys.exit("the served mask is not that of data/infer")
    kept = sum(segment["kept"] for segment in segments)
    sys.stdout.write(f"the answer is the pipeline's: {len(segments)} segments, {kept} kept\n")


if __name__ == "__main__":
    {"prepare": prepare, "compare": compare}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))  # type: ignore[operator]
