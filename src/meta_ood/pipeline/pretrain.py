"""Stage `pretrain`: a street network of known classes, trained from scratch or imported."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from meta_ood import models
from meta_ood.config import Params, RoleSet
from meta_ood.data.context import Log, Machine
from meta_ood.data.files import resume_folder, write_csv, write_json
from meta_ood.data.frames import read_frames
from meta_ood.data.images import image_size, read_label_map
from meta_ood.data.labels import CITYSCAPES
from meta_ood.inference import is_first_process
from meta_ood.models import checkpoint, published
from meta_ood.training.checkpoints import delete_checkpoint
from meta_ood.training.loader import FrameSet, SegmentationDataset, mix_proxies, pool_of
from meta_ood.training.loop import CURVES, fit, seeded
from meta_ood.training.losses import cross_entropy
from meta_ood.training.transforms import Augmentation, sides
from meta_ood.training.validation import Validation, evaluate_once

_log = logging.getLogger(__name__)


def run(
    params: Params,
    *,
    network: str,
    training: Sequence[Path],
    validation: Sequence[Path],
    weights: Path,
    metrics: Path,
    curves: Path,
    log: Log,
    machine: Machine,
) -> None:
    """Write the weights of the baseline, and its metrics on the validation frames."""
    own, settings = params.network_params(network), params.pretrain_of(network)
    num_classes = len(CITYSCAPES.names)
    options = models.portable(own.architecture, own.options)
    about: dict[str, Any] = {"name": network, "architecture": own.architecture, "options": options}
    about |= {"num_classes": num_classes, "variant": "baseline"}
    sets = [one for one in read_sets(params.roles.training, training) if one.weight != 0]
    validated = Validation(SegmentationDataset.of(read_sets(params.roles.validation, validation)))
    decisive = ("pretrain", own.architecture, options, own.weights, settings, params.seed, params.roles.training)
    resume = resume_folder(decisive, [folder / "frames.csv" for folder in (*training, *validation)])
    # 1. imported weights are taken as they are
    if given := own.weights.get("baseline"):
        if is_first_process():
            net = published.adopt(Path(given), weights, **about)
            write_json(metrics, evaluate_once(net, validated, num_classes, machine))
            write_csv(curves, CURVES, [])
        return
    # 2. otherwise cross entropy, from scratch or from a pretrained backbone
    if bare := without_labels(sets, num_classes):
        raise ValueError(f"roles.training: {', '.join(bare)}: no frame has labels, from which alone `pretrain` learns")
    warn_of_padding("pretrain.crop", settings.crop, sets)
    with seeded(params.seed):
        net = models.build(own.architecture, num_classes, **options)
    if backbone := own.weights.get("backbone"):
        published.load_backbone(net, Path(backbone))
    found = fit(
        net,
        SegmentationDataset.of(sets, Augmentation.of(settings)),
        lambda epoch: mix_proxies(pool_of(sets), 0, 0.0, seed=params.seed, epoch=epoch, samples=settings.samples),
        lambda logits, target, counts, done: cross_entropy(logits, target, counts=counts),
        settings,
        num_classes=num_classes,
        seed=params.seed,
        machine=machine,
        log=log,
        validation=validated,
        resume=resume,
        curves=curves,
        apart=told_apart(sets),
        what=f"pretrain {network}",
    )
    # 3. one process writes: on CPUs the statistics of BatchNorm differ between processes
    if is_first_process():
        checkpoint.save(weights, net, class_names=CITYSCAPES.names, **about)
        write_json(metrics, found)
        delete_checkpoint(resume)


def read_sets(role: Sequence[RoleSet], folders: Sequence[Path]) -> list[FrameSet]:
    """Return the prepared datasets of a role; a missing target is an error now, not hours later."""
    sets = []
    for own, folder in zip(role, folders, strict=True):
        frames = read_frames(folder, Path.cwd())
        for frame in frames:
            if not frame.target.is_file():
                gone = f"{frame.target}, which {folder}/frames.csv names"
                raise FileNotFoundError(f"{gone}, is missing: run `prepare` again")
        sets.append(FrameSet(own.dataset, frames, own.weight, own.scale))
    return sets


def told_apart(sets: Sequence[FrameSet]) -> list[str]:
    """Return the names of the sets if there are several."""
    return [own.name for own in sets] if len(sets) > 1 else []


def without_labels(sets: Sequence[FrameSet], num_classes: int) -> list[str]:
    """Return the names of the sets of which no target has a train id."""
    maps = {own.name: (read_label_map(frame.target) for frame in own.frames) for own in sets}
    return [name for name, targets in maps.items() if not any((target < num_classes).any() for target in targets)]


def warn_of_padding(key: str, crop: int | tuple[int, int], sets: Sequence[FrameSet]) -> None:
    """Warn if crops are larger than the first frame of a set, at its scale: they are padded with void."""
    rows, columns = sides(crop)
    size = f"{rows} x {columns}" if rows != columns else rows
    for own in sets:
        height, width = (round(side * own.scale) for side in image_size(own.frames[0].image))
        if rows > height or columns > width:
            larger = f"{size} is larger than the frames ({height} x {width})"
            _log.warning("%s: %s: crops are padded with void", key, larger)
