"""A detector of an untrained network: its parts, its folder, and frames."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from meta_ood.config import InferParams
from meta_ood.data.context import Machine
from meta_ood.data.frames import Frame
from meta_ood.data.labels import CITYSCAPES, IN, OOD
from meta_ood.data.prediction_files import read_prediction, write_prediction
from meta_ood.data.predictions import Prediction
from meta_ood.detector.folder import Settings, write_folder
from meta_ood.inference import predict
from meta_ood.meta_classification import MetaClassifier, fit
from meta_ood.models import build, checkpoint
from meta_ood.scores import SCORES
from meta_ood.segments import SegmentTable, measure_segments

CLASSES = 5


def blobs(seed: int, with_ood: bool = True) -> Prediction:
    """Return blobs of high entropy on certain ground, half of them on OoD."""
    rng = np.random.default_rng(seed)
    logits = np.zeros((CLASSES, 32, 48), np.float32)
    logits[0] = 9
    target = np.full((32, 48), IN, np.uint8)
    for k in range(6):
        row, column = rng.integers(2, 24), 8 * k
        size = 2 + 2 * (k % 2)
        logits[0, row : row + size, column : column + size] = 0.3 * rng.random()
        if k % 2 and with_ood:
            target[row : row + size, column : column + size] = OOD
    return Prediction(f"i{seed}", logits, (32, 48), True, target, scene=f"s{seed % 3}")


def save_weights(path: Path, network: torch.nn.Module, variant: str = "baseline") -> None:
    checkpoint.save(
        path,
        network,
        name="mini",
        architecture="deeplabv3plus_mini",
        options={},
        num_classes=19,
        class_names=CITYSCAPES.names,
        variant=variant,
    )


class Parts:
    """A folder with frames, weights, a meta classifier, and the detector's folder made of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        torch.manual_seed(0)
        network = build("deeplabv3plus_mini", 19)
        self.weights = folder / "weights.safetensors"
        save_weights(self.weights, network)
        # as the stages do: a network that was not loaded differs in the last bits
        network, _ = checkpoint.load(self.weights)
        generator = np.random.default_rng(0)
        self.frames = []
        for k in range(3):
            small = Image.fromarray(generator.integers(0, 256, (8, 16, 3), np.uint8))
            small.resize((128, 64), Image.Resampling.BICUBIC).save(folder / f"{k}.png")
            target = np.full((64, 128), IN, np.uint8)
            target[16:48, 32 * k : 32 * k + 40] = OOD
            Image.fromarray(target).save(folder / f"{k}_target.png")
            paths = (folder / f"{k}.png", folder / f"{k}_target.png")
            self.frames.append(Frame(str(k), paths[0], "", paths[1], "s"))
        # through a file, as between the stages infer and segments
        self.predictions = []
        for prediction in predict(network, self.frames, InferParams(), Machine("cpu", 1)):
            path = folder / f"{prediction.image_id}.h5"
            names = {"class_names": CITYSCAPES.names, "network": "mini", "weights_sha256": ""}
            write_prediction(path, prediction, **names)
            self.predictions.append(read_prediction(path))
        entropies = np.concatenate([SCORES["entropy"](p).ravel() for p in self.predictions])
        self.threshold = float(np.quantile(entropies, 0.7))
        self.meta = folder / "meta"
        self.meta.mkdir()
        (self.meta / "classifier.json").write_text(self.classifier().to_json())
        self.detector = folder / "detector"
        self.write(self.detector)

    def classifier(self) -> MetaClassifier:
        tables = [measure_segments(p, "entropy", self.threshold) for p in self.predictions]
        return fit(SegmentTable.concatenate(tables), operating_point=0.4)

    def write(self, folder: Path, meta: Path | None = None) -> Path:
        settings = Settings(score="entropy", threshold=self.threshold, meta_from="frames")
        write_folder(folder, self.weights, meta or self.meta, settings)
        return folder
