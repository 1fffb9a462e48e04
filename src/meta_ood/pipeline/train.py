"""Stage `train`: OoD training of the baseline with proxies (docs/method.md)."""

from pathlib import Path

from meta_ood.config import Params
from meta_ood.data.context import Log, Machine
from meta_ood.data.files import resume_folder, write_json
from meta_ood.inference import is_first_process
from meta_ood.models import checkpoint, published
from meta_ood.pipeline.pretrain import read_complete, warn_of_padding
from meta_ood.training.checkpoints import delete_checkpoint
from meta_ood.training.loader import SegmentationDataset, count_classes, hold_out, mix_proxies
from meta_ood.training.loop import fit
from meta_ood.training.losses import balanced, ood_objective
from meta_ood.training.pasting import OnRoad
from meta_ood.training.transforms import Augmentation
from meta_ood.training.validation import Validation, evaluate_once


def run(
    params: Params,
    *,
    network: str,
    training: Path,
    validation: Path,
    proxies: Path,
    baseline: Path,
    weights: Path,
    metrics: Path,
    log: Log,
    machine: Machine,
) -> None:
    """Write the OoD-trained weights, and their metrics on streets and held-out proxies."""
    own, settings = params.network_params(network), params.train_of(network)
    net, made_of = checkpoint.load(baseline, own.architecture)
    num_classes = int(made_of["num_classes"])
    same = {key: made_of[key] for key in ("architecture", "options", "num_classes")}
    # 1. imported weights are taken as they are
    if given := own.weights.get("ood_trained"):
        if is_first_process():
            net = published.adopt(Path(given), weights, name=network, variant="ood_trained", **same)
            validated = Validation(SegmentationDataset(read_complete(validation)))
            write_json(metrics, evaluate_once(net, validated, num_classes, machine))
        return
    # 2. otherwise training on street frames and proxies
    streets = read_complete(training)
    learned, held_out = hold_out(read_complete(proxies), settings.proxy_holdout, seed=params.seed)
    warn_of_padding("train.crop", settings.crop, streets)
    decisive = ("train", network, settings, params.seed, params.dataset_params(params.roles.proxies))
    files = [folder / "frames.csv" for folder in (training, validation, proxies)]
    resume = resume_folder(decisive, [*files, baseline])
    dataset = SegmentationDataset([*streets, *learned], Augmentation.of(settings))
    if settings.proxy_style == "on_road":
        indices = range(len(streets), len(dataset))
        dataset.on_road = OnRoad.of(settings, streets, indices, seed=params.seed, workers=machine.workers)
    class_weights = None
    if settings.class_balance:
        class_weights = balanced(count_classes(streets, num_classes, machine.workers), settings.class_balance)
    found = fit(
        net,
        dataset,
        lambda epoch: mix_proxies(
            len(streets),
            len(learned),
            settings.proxy_ratio,
            seed=params.seed,
            epoch=epoch,
            redraw=settings.proxy_redraw,
            style=settings.proxy_style,
        ),
        ood_objective(settings, class_weights),
        settings,
        num_classes=num_classes,
        seed=params.seed,
        machine=machine,
        log=log,
        validation=Validation(SegmentationDataset([*read_complete(validation), *held_out]), bool(held_out)),
        resume=resume,
        reset_optimizer=settings.reset_optimizer,
        what=f"train {network}",
    )
    # 3. one process writes: on CPUs the statistics of BatchNorm differ between processes
    if is_first_process():
        names = made_of["class_names"]
        checkpoint.save(weights, net, name=network, variant="ood_trained", class_names=names, **same)
        write_json(metrics, found)
        delete_checkpoint(resume)
