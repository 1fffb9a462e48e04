"""The paths that each stage reads and writes; no other module names a file below data/.

The keys of a stage's inputs and outputs are the keyword arguments of its function, and their paths are the deps and
outs of dvc.yaml (``tests/pipeline/test_pipeline.py`` holds the three together).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meta_ood.config import VARIANTS, Params, stage_values
from meta_ood.data.registry import lookup

STAGES: dict[str, tuple[str, ...]] = {
    "synthesize": (),
    "prepare": ("dataset",),
    "pretrain": ("network",),
    "train": ("network",),
    "infer": ("network", "variant", "dataset"),
    "segments": ("network", "variant", "dataset"),
    "meta": ("network", "variant", "dataset"),
    "evaluate": ("network", "variant", "dataset"),
    "detector": ("network", "variant"),
    "report": (),
}
"""Stage name -> the keys that say which of its instances is meant."""

DATA = Path("data")
DEMO = DATA / "raw" / "demo"


@dataclass(frozen=True)
class StagePaths:
    """A stage's inputs and outputs by keyword, relative to the repository's root."""

    inputs: dict[str, Path]
    outputs: dict[str, Path]


def stage_paths(
    stage: str, params: Params, network: str = "", variant: str = "", dataset: str = "", out: Path = DATA
) -> StagePaths:
    """Return what an instance of `stage` reads below data/ and writes below `out`.

    Raises:
        ValueError: If the stage or a name is unknown, or a key that the stage needs is empty.
    """
    keys = {"network": network, "variant": variant, "dataset": dataset}
    for key in lookup("stage", STAGES, stage):
        if not keys[key]:
            raise ValueError(f"stage {stage} needs --{key}")
    # names before files: a wrong name is not answered with a missing file
    if network:
        params.network_params(network)
    if variant:
        lookup("variant", dict.fromkeys(VARIANTS), variant)
    if dataset:
        params.dataset_params(dataset)
    paths = _stage_paths(stage, params, network, variant, dataset)
    moved = {name: out / path.relative_to(DATA) for name, path in paths.outputs.items()}
    return StagePaths(paths.inputs, moved)


def setting_of(params: Params, stage: str, network: str = "", variant: str = "", dataset: str = "") -> dict[str, Any]:
    """Return what an instance of `stage` and all stages before it depend on, but for the seed.

    Runs with equal settings are repetitions: they differ in the seed, or not at all. The baseline does not depend on
    the train section.

    Examples:
        >>> from meta_ood.config import load
        >>> params = load(Path("params.yaml"))
        >>> cell = {"network": "dualgcn_mini", "dataset": "lost_and_found"}
        >>> "train.ood_weight" in setting_of(params, "evaluate", variant="ood_trained", **cell)
        True
        >>> "train.ood_weight" in setting_of(params, "evaluate", variant="baseline", **cell)
        False
    """
    values: dict[str, Any] = {}
    before = list(STAGES)[: list(STAGES).index(stage)] if network else []
    if stage == "detector":
        before.remove("evaluate")
        dataset = params.detector.meta_from
    used = [params.roles.training, params.roles.validation]
    if variant == "baseline" or stage == "pretrain":
        before = [name for name in before if name != "train"]
    else:
        used.append(params.roles.proxies)
    for name in before:
        for data in [*used, dataset] if name == "prepare" else [dataset]:
            if name != "prepare" or data:
                values |= stage_values(params, name, network, variant, data)
    values |= stage_values(params, stage, network, variant, dataset)
    values.pop("seed", None)
    return values


def _stage_paths(stage: str, params: Params, network: str, variant: str, dataset: str) -> StagePaths:
    cell = Path(network, variant, dataset)
    prepared = DATA / "prepare" / dataset
    roles = {role: DATA / "prepare" / name for role, name in params.roles}
    networks = DATA / "networks" / network
    weights = networks / f"{variant}.safetensors"
    predictions = DATA / "infer" / cell
    segments = DATA / "segments" / network / variant / f"{dataset}.h5"
    meta, evaluation = DATA / "meta" / cell, DATA / "evaluate" / cell

    if stage == "synthesize":
        names = ("cityscapes", "coco", "lost_and_found", "fishyscapes")
        return StagePaths({}, {name: DEMO / name for name in names})
    if stage == "prepare":
        root = Path(params.dataset_params(dataset).root)
        return StagePaths({"root": root}, {"prepared": prepared})
    if stage == "pretrain":
        return StagePaths(
            {role: roles[role] for role in ("training", "validation")},
            {"weights": networks / "baseline.safetensors", "metrics": networks / "baseline.json"},
        )
    if stage == "train":
        made = {"weights": "ood_trained.safetensors", "metrics": "ood_trained.json"}
        return StagePaths(
            {**roles, "baseline": networks / "baseline.safetensors"},
            {key: networks / name for key, name in made.items()},
        )
    if stage == "infer":
        return StagePaths({"prepared": prepared, "weights": weights}, {"predictions": predictions})
    if stage == "segments":
        inputs = {"prepared": prepared, "predictions": predictions}
        return StagePaths(inputs, {"segments": segments})
    if stage == "meta":
        return StagePaths({"segments": segments}, {"meta": meta})
    if stage == "evaluate":
        return StagePaths(
            {"prepared": prepared, "predictions": predictions, "segments": segments, "meta": meta},
            {
                "metrics": evaluation / "metrics.json",
                "summary": evaluation / "summary.json",
                "curves": evaluation / "curves",
                "pictures": evaluation / "pictures",
            },
        )
    if stage == "detector":
        fitted = DATA / "meta" / network / variant / params.detector.meta_from
        return StagePaths({"weights": weights, "meta": fitted}, {"detector": DATA / "detectors" / network / variant})
    return StagePaths({"evaluation": DATA / "evaluate"}, {"report": DATA / "report"})
