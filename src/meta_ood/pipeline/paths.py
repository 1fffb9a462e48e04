"""The paths that each stage reads and writes; no other module names a file below data/.

The keys of a stage's inputs and outputs are the keyword arguments of its function, and their paths are the deps and
outs of dvc.yaml (``tests/pipeline/test_pipeline.py`` holds the three together).
"""

from pathlib import Path
from typing import Any, NamedTuple

from meta_ood.config import VARIANTS, Params, RolesParams, stage_values
from meta_ood.data.registry import lookup

_CELL = ("network", "variant", "dataset")

STAGES: dict[str, tuple[str, ...]] = {
    "synthesize": (),
    "prepare": ("dataset",),
    "pretrain": ("network",),
    "train": ("network",),
    "statistics": ("network", "variant"),
    **dict.fromkeys(("infer", "segments"), _CELL),
    "meta": ("network", "variant"),
    "evaluate": _CELL,
    "detector": ("network", "variant"),
    "report": (),
}
"""Stage name -> the keys that say which of its instances is meant."""

DATA = Path("data")
DEMO = DATA / "raw" / "demo"

# Name -> path. In braces: the instance's keys, its dataset's root, each dataset of a role.
_PREPARED = "data/prepare/{dataset}"
_BASELINE, _TRAINED = "data/networks/{network}/baseline", "data/networks/{network}/ood_trained"
_WEIGHTS = "data/networks/{network}/{variant}.safetensors"
_STATISTICS = "data/statistics/{network}/{variant}.safetensors"
_PREDICTIONS = "data/infer/{network}/{variant}/{dataset}"
_SEGMENTS = "data/segments/{network}/{variant}"
_META = "data/meta/{network}/{variant}"
_EVALUATION = "data/evaluate/{network}/{variant}/{dataset}"
_STREETS = dict.fromkeys(("training", "validation"), "data/prepare/{role}")

_INPUTS: dict[str, dict[str, str]] = {
    "synthesize": {},
    "prepare": {"root": "{root}"},
    "pretrain": _STREETS,
    "train": {**_STREETS, "proxies": "data/prepare/{role}", "baseline": f"{_BASELINE}.safetensors"},
    "statistics": {"training": _STREETS["training"], "weights": _WEIGHTS},
    "infer": {"prepared": _PREPARED, "weights": _WEIGHTS, "statistics": _STATISTICS},
    "segments": {"prepared": _PREPARED, "predictions": _PREDICTIONS},
    "meta": {"segments": _SEGMENTS},
    "evaluate": {
        **{"prepared": _PREPARED, "predictions": _PREDICTIONS},
        **{"segments": f"{_SEGMENTS}/{{dataset}}.h5", "meta": f"{_META}/{{dataset}}"},
    },
    "detector": {"weights": _WEIGHTS, "statistics": _STATISTICS, "meta": _META},
    "report": {
        **{"evaluation": "data/evaluate", "prepared": "data/prepare"},
        **{"segments": "data/segments", "meta": "data/meta"},
    },
}
_OUTPUTS: dict[str, dict[str, str]] = {
    "synthesize": {name: f"{DEMO}/{name}" for name in ("cityscapes", "coco", "lost_and_found", "fishyscapes")},
    "prepare": {"prepared": _PREPARED},
    **{
        stage: {"weights": f"{path}.safetensors", "metrics": f"{path}.json", "curves": f"{path}.csv"}
        for stage, path in (("pretrain", _BASELINE), ("train", _TRAINED))
    },
    "statistics": {"statistics": _STATISTICS},
    "infer": {"predictions": _PREDICTIONS},
    "segments": {"segments": f"{_SEGMENTS}/{{dataset}}.h5"},
    "meta": {"meta": _META},
    "evaluate": {
        **{name: f"{_EVALUATION}/{name}.json" for name in ("metrics", "summary")},
        **{name: f"{_EVALUATION}/{name}" for name in ("curves", "pictures")},
        "masks": f"{_EVALUATION}/masks.h5",
    },
    "detector": {"detector": "data/detectors/{network}/{variant}"},
    "report": {"report": "data/report", "summary": "data/summary.json"},
}


class StagePaths(NamedTuple):
    """A stage's inputs and outputs by keyword, relative to the repository's root.

    The inputs of a role with several datasets are ``training/NAME`` and so on, one after the other.
    """

    inputs: dict[str, Path]
    outputs: dict[str, Path]

    @property
    def arguments(self) -> dict[str, Path | list[Path]]:
        """What the stage's function takes: all paths, those of a role as a list."""
        roles: dict[str, list[Path]] = {}
        for name, path in self.inputs.items():
            if (role := name.split("/")[0]) in RolesParams.model_fields:
                roles.setdefault(role, []).append(path)
        others = {name: path for name, path in self.inputs.items() if name.split("/")[0] not in roles}
        return {**others, **roles, **self.outputs}


def stage_paths(
    stage: str, params: Params, network: str = "", variant: str = "", dataset: str = "", out: Path = DATA
) -> StagePaths:
    """Return what an instance of `stage` reads below data/ and writes below `out`.

    Raises:
        ValueError: If the stage or a name is unknown, or a key that the stage needs is empty.
    """
    names = {"network": network, "variant": variant, "dataset": dataset}
    for key in lookup("stage", STAGES, stage):
        if not names[key]:
            raise ValueError(f"stage {stage} needs --{key}")
    # names before files: a wrong name is not answered with a missing file
    if network:
        params.network_params(network)
    if variant:
        lookup("variant", dict.fromkeys(VARIANTS), variant)
    names["root"] = params.dataset_params(dataset).root if dataset else ""
    inputs = {}
    for name, path in _INPUTS[stage].items():
        sets = getattr(params.roles, name, ())
        for own in sets:
            inputs[f"{name}/{own.dataset}" if len(sets) > 1 else name] = Path(path.format(role=own.dataset))
        if not sets:
            inputs[name] = Path(path.format_map(names))
    outputs = {name: out / Path(path.format_map(names)).relative_to(DATA) for name, path in _OUTPUTS[stage].items()}
    return StagePaths(inputs, outputs)


def setting_of(params: Params, stage: str, network: str = "", variant: str = "", dataset: str = "") -> dict[str, Any]:
    """Return what an instance of `stage` and all stages before it depend on, but for the seed.

    Runs with equal settings are repetitions: they differ in the seed, or not at all. The baseline does not depend on
    the train section.
    """
    before = list(STAGES)[: list(STAGES).index(stage)] if network else []
    used = [own.dataset for own in (*params.roles.training, *params.roles.validation)]
    # the evaluation sets whose segments count: those judged, and those that train the meta classifier
    judged: tuple[str, ...] = (dataset,)
    if stage == "meta":
        judged = params.evaluation_sets
    elif stage == "detector":
        before.remove("evaluate")
        judged = (params.detector.meta_from,) if params.meta.train_on is None else ()
    if stage in ("meta", "evaluate", "detector"):
        used += params.meta.train_on or ()
    if variant == "baseline" or stage == "pretrain":
        before = [name for name in before if name != "train"]
    else:
        used += [own.dataset for own in params.roles.proxies]
    values: dict[str, Any] = {}
    for name in before:
        # training has its own datasets
        for data in filter(None, [*used, *judged]) if name == "prepare" else [dataset]:
            values |= stage_values(params, name, network, variant, data)
    values |= stage_values(params, stage, network, variant, dataset)
    if network:
        values.pop("evaluation_sets", None)  # other cells of the matrix
    values.pop("seed", None)
    return values
