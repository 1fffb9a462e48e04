"""Which stage reads and writes what below data/, and depends on what: the only module that knows.

The keys of a stage's inputs and outputs are the keyword arguments of its function, and their paths are the deps and
outs of dvc.yaml (``tests/pipeline/test_pipeline.py`` holds the three together).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meta_ood.config import Params, stage_values
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
        ValueError: If the stage is unknown or a key that it needs is empty.
    """
    given = {"network": network, "variant": variant, "dataset": dataset}
    for key in lookup("stage", STAGES, stage):
        if not given[key]:
            raise ValueError(f"stage {stage} needs --{key}")
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
    data = DATA
    cell = Path(network, variant, dataset)
    prepared = {role: data / "prepare" / getattr(params.roles, role) for role in _ROLES}
    networks = data / "networks" / network
    predictions = data / "infer" / cell
    segments = data / "segments" / network / variant / f"{dataset}.h5"
    meta, evaluation = data / "meta" / cell, data / "evaluate" / cell

    if stage == "synthesize":
        names = ("cityscapes", "coco", "lost_and_found", "fishyscapes")
        return StagePaths({}, {name: DEMO / name for name in names})
    if stage == "prepare":
        root = Path(params.dataset_params(dataset).root)
        return StagePaths({"root": root}, {"prepared": data / "prepare" / dataset})
    if stage == "pretrain":
        return StagePaths(
            {role: prepared[role] for role in ("training", "validation")},
            {"weights": networks / "baseline.safetensors", "metrics": networks / "baseline.json"},
        )
    if stage == "train":
        return StagePaths(
            {**prepared, "baseline": networks / "baseline.safetensors"},
            {"weights": networks / "ood_trained.safetensors", "metrics": networks / "ood_trained.json"},
        )
    if stage == "infer":
        return StagePaths(
            {"prepared": data / "prepare" / dataset, "weights": networks / f"{variant}.safetensors"},
            {"predictions": predictions},
        )
    if stage == "segments":
        return StagePaths({"predictions": predictions}, {"segments": segments})
    if stage == "meta":
        return StagePaths({"segments": segments}, {"meta": meta})
    if stage == "evaluate":
        return StagePaths(
            {"prepared": data / "prepare" / dataset, "predictions": predictions, "segments": segments, "meta": meta},
            {
                "metrics": evaluation / "metrics.json",
                "summary": evaluation / "summary.json",
                "curves": evaluation / "curves",
                "pictures": evaluation / "pictures",
            },
        )
    if stage == "detector":
        weights = networks / f"{variant}.safetensors"
        fitted = data / "meta" / network / variant / params.detector.meta_from
        return StagePaths({"weights": weights, "meta": fitted}, {"detector": data / "detectors" / network / variant})
    return StagePaths({"evaluation": data / "evaluate"}, {"report": data / "report"})


_ROLES = ("training", "validation", "proxies")
