"""Stage `train`: OoD training of the baseline with proxies (docs/method.md)."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from meta_ood.config import Params
from meta_ood.data.context import Log, Machine
from meta_ood.data.files import resume_folder, write_csv, write_json
from meta_ood.inference import is_first_process
from meta_ood.models import checkpoint, published
from meta_ood.pipeline.pretrain import read_sets, told_apart, warn_of_padding, without_labels
from meta_ood.training.checkpoints import delete_checkpoint
from meta_ood.training.loader import FrameSet, SegmentationDataset, count_classes, hold_out, mix_proxies, pool_of
from meta_ood.training.loop import CURVES, fit
from meta_ood.training.losses import balanced, ood_objective
from meta_ood.training.optimisation import interpolate
from meta_ood.training.pasting import OnRoad
from meta_ood.training.transforms import Augmentation
from meta_ood.training.validation import Validation, evaluate_once


def run(
    params: Params,
    *,
    network: str,
    training: Sequence[Path],
    validation: Sequence[Path],
    proxies: Sequence[Path],
    baseline: Path,
    weights: Path,
    metrics: Path,
    curves: Path,
    log: Log,
    machine: Machine,
) -> None:
    """Write the OoD-trained weights, and their metrics on streets and held-out proxies."""
    own, settings, roles = params.network_params(network), params.train_of(network), params.roles

    def start() -> nn.Module:  # the baseline anew: a teacher where there are no labels, one end of an interpolation
        return checkpoint.load(baseline, own.architecture)[0]

    net, made_of = checkpoint.load(baseline, own.architecture)
    num_classes = int(made_of["num_classes"])
    same = {key: made_of[key] for key in ("architecture", "options", "num_classes")}
    # 1. imported weights are taken as they are
    if given := own.weights.get("ood_trained"):
        if is_first_process():
            net = published.adopt(Path(given), weights, name=network, variant="ood_trained", **same)
            validated = Validation(SegmentationDataset.of(read_sets(roles.validation, validation)))
            write_json(metrics, evaluate_once(net, validated, num_classes, machine))
            write_csv(curves, CURVES, [])
        return
    # 2. otherwise training on street frames and proxies
    sets, learned, held_out = read_sets(roles.training, training), [], []
    streets = [one for one in sets if one.weight != 0]
    for each in read_sets(roles.proxies, proxies):
        kept, held = hold_out(each.frames, settings.proxy_holdout, seed=params.seed)
        learned.append(replace(each, frames=kept))
        held_out += held
    warn_of_padding("train.crop", settings.crop, streets)
    labels = [params.dataset_params(one.dataset) for one in (*roles.training, *roles.proxies)]
    decisive = ("train", network, settings, params.seed, roles, labels)
    files = [folder / "frames.csv" for folder in (*training, *validation, *proxies)]
    resume = resume_folder(decisive, [*files, baseline])
    dataset = SegmentationDataset.of([*streets, *learned], Augmentation.of(settings))
    frames = [frame for one in streets for frame in one.frames]
    # known objects are cut out of photos of other places, too: sets of which nothing else is used
    sources = [(frame, one.scale if one.weight != 0 else 0.0) for one in sets for frame in one.frames]
    indices = range(len(frames), len(dataset))
    dataset.on_road = OnRoad.of(settings, sources, indices, seed=params.seed, workers=machine.workers)
    class_weights = None
    if settings.class_balance:
        counts = count_classes(frames, num_classes, machine.workers)
        class_weights = balanced(counts, settings.class_balance)
    looked_at = read_sets(roles.validation, validation) + ([FrameSet("proxies", held_out)] if held_out else [])
    validated = Validation(SegmentationDataset.of(looked_at), bool(held_out))
    found = fit(
        net,
        dataset,
        lambda epoch: mix_proxies(
            pool_of(streets),
            pool_of(learned),
            settings.proxy_ratio,
            seed=params.seed,
            epoch=epoch,
            samples=settings.samples,
            redraw=settings.proxy_redraw,
            style=settings.proxy_style,
        ),
        ood_objective(settings, class_weights),
        settings,
        num_classes=num_classes,
        seed=params.seed,
        machine=machine,
        log=log,
        validation=validated,
        resume=resume,
        curves=curves,
        reset_optimizer=settings.reset_optimizer,
        teacher=start() if settings.distillation or without_labels(streets, num_classes) else None,
        apart=told_apart(streets),
        what=f"train {network}",
    )
    # 3. one process writes: on CPUs the statistics of BatchNorm differ between processes
    if is_first_process():
        if settings.interpolation < 1:
            interpolate(net, start(), settings.interpolation)
            found |= evaluate_once(net, validated, num_classes, machine)
        names = made_of["class_names"]
        checkpoint.save(weights, net, name=network, variant="ood_trained", class_names=names, **same)
        write_json(metrics, found)
        delete_checkpoint(resume)
