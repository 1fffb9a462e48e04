"""Stage `pretrain`: a street network of known classes, trained from scratch or imported."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meta_ood import models
from meta_ood.config import Params
from meta_ood.data.context import Log, Machine
from meta_ood.data.files import resume_folder, write_json
from meta_ood.data.frames import Frame, read_frames
from meta_ood.data.images import image_size
from meta_ood.data.labels import CITYSCAPES
from meta_ood.inference import is_first_process
from meta_ood.models import checkpoint, published
from meta_ood.training.checkpoints import delete_checkpoint
from meta_ood.training.loader import SegmentationDataset, mix_proxies
from meta_ood.training.loop import fit, seeded
from meta_ood.training.losses import cross_entropy
from meta_ood.training.transforms import Augmentation, sides
from meta_ood.training.validation import Validation, evaluate_once

_log = logging.getLogger(__name__)


def run(
    params: Params,
    *,
    network: str,
    training: Path,
    validation: Path,
    weights: Path,
    metrics: Path,
    log: Log,
    machine: Machine,
) -> None:
    """Write the weights of the baseline, and its metrics on the validation frames."""
    own, settings = params.network_params(network), params.pretrain_of(network)
    num_classes = len(CITYSCAPES.names)
    about: dict[str, Any] = {"name": network, "architecture": own.architecture, "options": own.options}
    about |= {"num_classes": num_classes, "variant": "baseline"}
    frames = read_complete(training)
    validated = Validation(SegmentationDataset(read_complete(validation)))
    decisive = ("pretrain", own.architecture, own.options, own.weights, settings, params.seed)
    resume = resume_folder(decisive, (training / "frames.csv", validation / "frames.csv"))
    # 1. imported weights are taken as they are
    if given := own.weights.get("baseline"):
        if is_first_process():
            net = published.adopt(Path(given), weights, **about)
            write_json(metrics, evaluate_once(net, validated, num_classes, machine))
        return
    # 2. otherwise cross entropy, from scratch or from a pretrained backbone
    warn_of_padding("pretrain.crop", settings.crop, frames)
    with seeded(params.seed):
        net = models.build(own.architecture, num_classes, **own.options)
    if backbone := own.weights.get("backbone"):
        published.load_backbone(net, Path(backbone))
    found = fit(
        net,
        SegmentationDataset(frames, Augmentation.of(settings)),
        lambda epoch: mix_proxies(len(frames), 0, 0.0, seed=params.seed, epoch=epoch),
        lambda logits, target, counts, done: cross_entropy(logits, target, counts=counts),
        settings,
        num_classes=num_classes,
        seed=params.seed,
        machine=machine,
        log=log,
        validation=validated,
        resume=resume,
        what=f"pretrain {network}",
    )
    # 3. one process writes: on CPUs the statistics of BatchNorm differ between processes
    if is_first_process():
        checkpoint.save(weights, net, class_names=CITYSCAPES.names, **about)
        write_json(metrics, found)
        delete_checkpoint(resume)


def read_complete(folder: Path) -> list[Frame]:
    """Return the frames of a prepared dataset; a missing target is an error now, not hours later."""
    frames = read_frames(folder, Path.cwd())
    for frame in frames:
        if not frame.target.is_file():
            raise FileNotFoundError(f"{frame.target}, which {folder}/frames.csv names, is missing: run `prepare` again")
    return frames


def warn_of_padding(key: str, crop: int | tuple[int, int], frames: Sequence[Frame]) -> None:
    """Warn if crops are larger than the first frame: they are padded with void."""
    (height, width), (rows, columns) = image_size(frames[0].image), sides(crop)
    if rows > height or columns > width:
        size = f"{rows} x {columns}" if rows != columns else rows
        _log.warning("%s: %s is larger than the frames (%d x %d): crops are padded with void", key, size, height, width)
