"""What the stage `evaluate` wrote, read back: one evaluation per network, variant and dataset."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from meta_ood.data.files import read_json

Floats = npt.NDArray[np.float64]
Columns = Mapping[str, Floats]  # a curve: column name -> ``(N,)``
Key = tuple[str, str, str]  # network, variant, dataset


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of one network and variant on one dataset."""

    network: str
    variant: str
    dataset: str
    metrics: Mapping[str, Any]  # metrics.json: fractions in [0, 1], null where undefined
    curves: Mapping[str, Columns] = field(default_factory=dict)  # by the stem of the file
    pictures: Mapping[str, Mapping[str, Path]] = field(default_factory=dict)  # image id -> kind ->
    masks: Path | None = None  # masks.h5; None before version 0.2

    @property
    def key(self) -> Key:
        """Network, variant and dataset."""
        return self.network, self.variant, self.dataset

    def section(self, *names: str) -> Mapping[str, Any]:
        """Return the mapping below the nested keys `names`, empty if there is none."""
        found: Any = self.metrics
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    def value(self, *names: str) -> float | None:
        """Return the number below the nested keys `names`; None if absent, null or not finite."""
        found = self.section(*names[:-1]).get(names[-1])
        return float(found) if isinstance(found, int | float) and math.isfinite(found) else None

    def interval(self, name: str) -> tuple[float, float] | None:
        """Return the 95 % interval ``(low, high)`` of a metric; None if unknown."""
        low, high = self.section("intervals").get(name) or (None, None)
        return None if low is None or high is None else (float(low), float(high))

    @property
    def has_ood_objects(self) -> bool:
        """Whether the dataset has OoD objects; True if their number is unknown."""
        return self.value("components") != 0

    @property
    def has_labels(self) -> bool:
        """Whether the dataset has labels; without them all pixels count as known and none has a class."""
        return self.has_ood_objects or bool(self.value("ignored")) or bool(self.metrics.get("class_iou"))

    @property
    def promise_state(self) -> str:
        """What the dataset says of the promise of false alarms, with the test of the registry's gate.

        It "chose" the threshold; its ordinary frames leave the promise standing ("kept") or refute it ("broken"); or it
        has OoD objects, and the rate is "above" the budget that was promised for ordinary frames, or "below".
        """
        promise = self.metrics["promise"]
        if promise["is_calibration"]:
            return "chose"
        if promise["p_value"] is None:
            return "above" if promise["rate"] > promise["budget"] else "below"
        return "broken" if promise["p_value"] < 1 - promise["confidence"] else "kept"


Pair = tuple[Evaluation, Evaluation]  # baseline and OoD-trained variant of one network on one dataset


@dataclass(frozen=True)
class Results:
    """The evaluations that params.yaml names, in its order, as far as they exist."""

    networks: Sequence[str]
    variants: Sequence[str]
    datasets: Sequence[str]
    evaluations: Mapping[Key, Evaluation]

    @property
    def keys(self) -> list[Key]:
        """All keys, found or not, so ordered that the variants of a network are neighbours."""
        return [(n, v, d) for d in self.datasets for n in self.networks for v in self.variants]

    @property
    def missing(self) -> list[Key]:
        """The keys without an evaluation."""
        return [key for key in self.keys if key not in self.evaluations]

    @property
    def ordered(self) -> list[Evaluation]:
        """The evaluations in the order of :attr:`keys`."""
        return [self.evaluations[key] for key in self.keys if key in self.evaluations]

    @property
    def differing_decisions(self) -> str:
        """About how many segments out of fold and the detector's classifier decide differently, as words."""
        known = [one for one in self.ordered if one.value("differing_decisions") is not None]
        differing, segments = (sum(one.value(key) or 0 for one in known) for key in ("differing_decisions", "segments"))
        return f"{differing:.0f} of {segments:.0f} segments" if known else "some of them"

    @property
    def train_on(self) -> str | None:
        """The sets that trained the meta classifier of all sets, as words; None where each set has its own."""
        found = [one.metrics["train_on"] for one in self.ordered if "train_on" in one.metrics]
        return " and ".join(found[0]) or "no set" if found else None

    @property
    def promised(self) -> list[Evaluation]:
        """The evaluations whose segments a budget of false alarms decides."""
        return [one for one in self.ordered if one.metrics.get("promise")]

    @property
    def groups(self) -> list[list[Evaluation]]:
        """The variants of each network on each dataset."""
        # in that order they are neighbours
        return [list(group) for _, group in groupby(self.ordered, key=attrgetter("dataset", "network"))]

    def baseline_of(self, one: Evaluation) -> Evaluation | None:
        """Return the baseline that a variant is compared with; None for the baseline itself."""
        found = self.evaluations.get((one.network, "baseline", one.dataset))
        return None if found is one else found

    @property
    def pairs(self) -> list[Pair]:
        """Baseline and OoD-trained variant wherever both were evaluated."""
        trained = (one for one in self.ordered if one.variant == "ood_trained")
        return [(before, one) for one in trained if (before := self.baseline_of(one))]


def network_metrics(results: Results) -> dict[str, dict[str, float]]:
    """Return three metrics of each network, few enough for a line of ``dvc exp show``: network -> key -> value.

    They are those of the last variant: AUPRC and FPR95 of the first dataset that has OoD pixels, and mIoU of the first
    that has known classes; those that no dataset has are left out.
    """
    found: dict[str, dict[str, float]] = {}
    for group in results.groups:
        one = group[-1]
        for key in ("auprc", "fpr95", "miou"):
            if (value := one.value(key)) is not None:
                found.setdefault(one.network, {}).setdefault(key, value)
    return found


def read_results(root: Path, networks: Sequence[str], variants: Sequence[str], datasets: Sequence[str]) -> Results:
    """Read the evaluations of these networks, variants and datasets as far as they exist.

    Raises:
        ValueError: If a file cannot be understood; it is named.
    """
    expected = Results(networks, variants, datasets, {})
    folders = [root.joinpath(*key) for key in expected.keys]
    found = [_read(folder) for folder in folders if (folder / "metrics.json").is_file()]
    return replace(expected, evaluations={one.key: one for one in found})


def read_evaluations(root: Path) -> dict[Key, Evaluation]:
    """Read every ``root/<network>/<variant>/<dataset>``.

    Raises:
        FileNotFoundError: If there is no evaluation below `root`.
        ValueError: If a file cannot be understood; it is named.
    """
    found = [_read(path.parent) for path in sorted(root.glob("*/*/*/metrics.json"))]
    if not found:
        raise FileNotFoundError(f"{root}: no <network>/<variant>/<dataset>/metrics.json below it")
    return {one.key: one for one in found}


def _read(folder: Path) -> Evaluation:
    path = folder / "metrics.json"
    metrics = read_json(path)
    if not isinstance(metrics, dict):
        raise ValueError(f"{path}: expected an object, got {type(metrics).__name__}")
    pictures: dict[str, dict[str, Path]] = {}
    for picture in sorted(folder.glob("pictures/*.png")):
        image_id, _, kind = picture.stem.rpartition("_")
        if image_id and kind in ("image", "target", "score", "classes", "segments"):
            pictures.setdefault(image_id, {})[kind] = picture
    curves = {curve.stem: _read_curve(curve) for curve in sorted(folder.glob("curves/*.csv"))}
    network, variant, dataset = folder.parts[-3:]
    masks = folder / "masks.h5"
    return Evaluation(network, variant, dataset, metrics, curves, pictures, masks if masks.is_file() else None)


def _read_curve(path: Path) -> Columns:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        values = np.array(rows, np.float64).reshape(len(rows), len(header))
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: not a table of numbers: {error}") from None
    # columns of meta_calibration.csv in version 0.1
    names = [{"said": "predicted", "seen": "observed"}.get(name, name) for name in header]
    return dict(zip(names, values.T, strict=True))
