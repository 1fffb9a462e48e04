"""The sections of params.yaml as frozen dataclasses, with types and ranges."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, TypeVar

from meta_ood.config.strict import ConfigError, Range, build

T = TypeVar("T")


Fraction = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(1e-12)]
NonNegative = Annotated[float, Range(0)]
Count = Annotated[int, Range(0)]
AtLeastOne = Annotated[int, Range(1)]
Options = Mapping[str, Any]
"""Keyword options of something pluggable, checked by what takes them."""


@dataclass(frozen=True)
class RolesParams:
    """Which prepared dataset plays which part in training."""

    training: str
    validation: str
    proxies: str


@dataclass(frozen=True)
class SynthesizeParams:
    """The demo world: frame size [px] and number of frames of each dataset."""

    height: Annotated[int, Range(64)]
    width: Annotated[int, Range(128)]
    cityscapes_train: AtLeastOne
    cityscapes_val: AtLeastOne
    coco: AtLeastOne
    lost_and_found: AtLeastOne
    fishyscapes: AtLeastOne


@dataclass(frozen=True)
class DatasetParams:
    """One prepared dataset: a reader, its raw root, a split and the reader's options."""

    reader: str
    root: str
    split: str
    options: Options = field(default_factory=dict)


Precision = Literal["float32", "tf32", "bfloat16"]
"""``float32``; ``tf32``: products of operands with 10 bits of mantissa, on NVIDIA GPUs (elsewhere
the same as ``float32``); ``bfloat16``: autocast. Weights and stored logits are always float32."""


@dataclass(frozen=True)
class OptimisationParams:
    """What `pretrain` and `train` have in common."""

    epochs: AtLeastOne
    batch_size: AtLeastOne
    crop: Annotated[int, Range(16)]
    learning_rate: Positive
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: NonNegative = 0.0
    schedule: Literal["constant", "cosine", "poly"] = "constant"
    scale_jitter: Annotated[float, Range(0, 0.9)] = 0.0
    colour_jitter: Annotated[float, Range(0, 0.9)] = 0.0
    gradient_clip: NonNegative = 0.0
    accumulate: AtLeastOne = 1
    ema: Fraction = 0.0
    precision: Precision = "float32"
    checkpoint_every: AtLeastOne = 100
    validate_every: AtLeastOne = 1
    keep: Literal["last", "best"] = "last"
    patience: Count = 0
    """Looks of validation without a better one, after which training ends; 0: never."""
    batch_norm: Literal["train", "frozen"] = "train"
    """Batch statistics (published), or those of the weights that training starts from."""
    compile: bool = False
    """Let torch.compile make one program of the network."""


@dataclass(frozen=True)
class PretrainParams(OptimisationParams):
    """Cross entropy from scratch, where no published weights are imported."""


@dataclass(frozen=True)
class TrainParams(OptimisationParams):
    """OoD training (METHOD.md G2)."""

    loss: str = "entropy_maximization"
    loss_options: Options = field(default_factory=dict)
    ood_weight: Fraction = 0.9
    ood_weight_ramp: Fraction = 0.0
    """Share of the training over which λ rises from 0."""
    proxy_ratio: NonNegative = 0.1
    proxy_redraw: bool = True
    proxy_style: Literal["whole", "pasted"] = "whole"
    proxy_holdout: Fraction = 0.1
    """Share of the proxies that validation looks at instead of training."""
    reset_optimizer: bool = False


_WEIGHTS = ("baseline", "ood_trained", "backbone")


@dataclass(frozen=True)
class NetworkParams:
    """One network: an architecture, its options, and what differs from the common sections."""

    architecture: str
    options: Options = field(default_factory=dict)
    pretrain: Options = field(default_factory=dict)
    train: Options = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    """Files to start from: ``baseline`` and ``ood_trained`` as ``meta-ood weights import`` stores
    them, taken instead of training; ``backbone`` of an image classifier, where training begins."""


@dataclass(frozen=True)
class InferParams:
    """From images to stored logits."""

    precision: Precision = "float32"
    flip: bool = False
    scales: tuple[Positive, ...] = (1.0,)
    tile: Count = 0
    batch_size: AtLeastOne = 1
    """Frames of one size that go through together; more change the last bits (decision 0071)."""


@dataclass(frozen=True)
class SegmentsParams:
    """Which score at which threshold makes OoD segments."""

    score: str = "entropy"
    threshold: float = 0.7


@dataclass(frozen=True)
class MetaParams:
    """The meta classifier, its folds and its operating point."""

    classifier: str = "logistic_regression"
    classifier_options: Options = field(default_factory=dict)
    folds: Literal["scene", "image", "leave_one_out", "published"] = "scene"
    operating_point: Fraction = 0.5
    max_lost: Fraction | None = None
    bootstrap: Count = 100


@dataclass(frozen=True)
class EvaluateParams:
    """Which scores and protocols are reported, and how many frames are pictured.

    Logits are divided by `temperature` before pixel scores and calibration are taken; segments are
    not touched. Component metrics of the score map itself leave out what is smaller than
    `component_track` says. `component_thresholds`, by network and variant, were chosen on another
    set and go before `component_threshold`; null is the evaluated set's own best F1, an oracle.
    """

    scores: tuple[str, ...] = ("entropy",)
    protocols: tuple[str, ...] = ("exact",)
    temperature: Positive = 1.0
    bootstrap: Count = 200
    component_track: Literal["all", "obstacle", "anomaly"] = "all"
    component_threshold: float | None = None
    component_thresholds: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    pictures: Count = 4

    def threshold_of(self, network: str, variant: str) -> float | None:
        """Return the given threshold of a network and variant, None if there is none."""
        return self.component_thresholds.get(network, {}).get(variant, self.component_threshold)


@dataclass(frozen=True)
class DetectorParams:
    """Which evaluation set's meta classifier goes into the detector."""

    meta_from: str


@dataclass(frozen=True)
class ReportParams:
    """The report's title."""

    title: str = "meta-ood"


@dataclass(frozen=True)
class GateParams:
    """What a version must show against the baseline to become champion.

    AUPRC must rise and FPR95 fall by at least the gains on `dataset`, mIoU must fall by at most
    `miou_loss` on `miou_dataset`. With `judge_by` = interval the confidence intervals must say so
    too: they must not overlap.
    """

    dataset: str = "lost_and_found"
    auprc_gain: Fraction = 0.0
    fpr95_gain: Fraction = 0.0
    miou_dataset: str = "cityscapes_val"
    miou_loss: Fraction = 0.01
    judge_by: Literal["point", "interval"] = "point"


@dataclass(frozen=True)
class TrackingParams:
    """Names in the tracking store, and the gate of the registry."""

    experiment: str = "meta-ood"
    champion: GateParams = field(default_factory=GateParams)


@dataclass(frozen=True)
class Params:
    """All of params.yaml."""

    seed: Count
    networks: tuple[str, ...]
    variants: tuple[Literal["baseline", "ood_trained"], ...]
    evaluation_sets: tuple[str, ...]
    roles: RolesParams
    synthesize: SynthesizeParams
    datasets: Mapping[str, DatasetParams]
    network: Mapping[str, NetworkParams]
    pretrain: PretrainParams
    train: TrainParams
    infer: InferParams
    segments: SegmentsParams
    meta: MetaParams
    evaluate: EvaluateParams
    detector: DetectorParams
    report: ReportParams
    tracking: TrackingParams

    def __post_init__(self) -> None:
        """Check the names that one key uses and another defines."""
        thresholds = self.evaluate.component_thresholds
        for key, names, defined, where in (
            ("networks", self.networks, self.network, "network"),
            ("evaluate.component_thresholds", thresholds, self.network, "network"),
            ("evaluation_sets", self.evaluation_sets, self.datasets, "datasets"),
            (
                "detector.meta_from",
                (self.detector.meta_from,),
                self.evaluation_sets,
                "evaluation_sets",
            ),
            ("roles.training", (self.roles.training,), self.datasets, "datasets"),
            ("roles.validation", (self.roles.validation,), self.datasets, "datasets"),
            ("roles.proxies", (self.roles.proxies,), self.datasets, "datasets"),
        ):
            for name in names:
                if name not in defined:
                    known = ", ".join(sorted(defined))
                    raise ConfigError(f"{key}: {name!r} is not defined in {where}; known: {known}")
        for name, own in self.network.items():
            self.pretrain_of(name)
            self.train_of(name)
            for key in own.weights:
                if key not in _WEIGHTS:
                    known = ", ".join(_WEIGHTS)
                    renamed = "; trunk is called backbone now" if key == "trunk" else ""
                    raise ConfigError(
                        f"network.{name}.weights.{key}: unknown key; known: {known}{renamed}"
                    )

    def network_params(self, name: str) -> NetworkParams:
        """Return the entry of network `name`; an unknown name lists the known ones."""
        if name not in self.network:
            known = ", ".join(sorted(self.network))
            raise ConfigError(f"network: unknown name {name!r}; known: {known}")
        return self.network[name]

    def dataset_params(self, name: str) -> DatasetParams:
        """Return the entry of dataset `name`; an unknown name lists the known ones."""
        if name not in self.datasets:
            known = ", ".join(sorted(self.datasets))
            raise ConfigError(f"datasets: unknown name {name!r}; known: {known}")
        return self.datasets[name]

    def pretrain_of(self, network: str) -> PretrainParams:
        """Return the pretrain section with the network's own values over it."""
        own = self.network_params(network).pretrain
        return _override(self.pretrain, own, f"network.{network}.pretrain")

    def train_of(self, network: str) -> TrainParams:
        """Return the train section with the network's own values over it."""
        own = self.network_params(network).train
        return _override(self.train, own, f"network.{network}.train")


def _override(section: T, own: Options, key: str) -> T:
    values = {f.name: getattr(section, f.name) for f in fields(typing.cast(Any, section))}
    values.update(own)
    return build(type(section), values, key)
