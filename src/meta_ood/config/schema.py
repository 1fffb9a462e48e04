"""The sections of params.yaml as frozen pydantic models, with types, ranges and known names."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)

from meta_ood.config.errors import validated
from meta_ood.data.registry import known_names, lookup

T = TypeVar("T")


def _finite(value: Any) -> Any:
    """Refuse NaN and infinities at any depth."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"got {value}, expected finite numbers")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _finite(part)
    return value


def _with_own(names: Any, *more: str) -> WithJsonSchema:
    """Describe the names of a literal, `more`, and ``package.module:name`` for one of the user's own."""
    return WithJsonSchema({"enum": [*get_args(names), *more, "package.module:name"]})


def _check_name(names: Any, *more: str) -> AfterValidator:
    """Accept the names of a literal, ``FAMILY/any`` for `more`, and ``package.module:name`` for one's own."""
    known = (*get_args(names), *more, "package.module:name")
    families = tuple(f"{each.partition('/')[0]}/" for each in more)

    def check(name: str) -> str:
        if ":" not in name and name not in known and not name.startswith(families):
            raise ValueError(f"{name!r} is unknown; {known_names(name, known)}")
        return name

    return AfterValidator(check)


def _height_and_width(sides: tuple[int, ...]) -> tuple[int, ...]:
    if len(sides) != 2:
        raise ValueError(f"got {list(sides)}, expected [height, width]")
    return sides


def _with_dispersion(kinds: tuple[str, ...]) -> tuple[str, ...]:
    if kinds.count("dispersion") != 1 or kinds.count("scores") > 1:
        raise ValueError(f"got {list(kinds)}, expected [dispersion] or [dispersion, scores]")
    return kinds


def _crop(value: Any) -> Any:
    """Return the side of a square, or height and width, in pixels."""
    sides = value if isinstance(value, list | tuple) else (value, value)
    if len(sides) != 2 or not all(type(side) is int and 16 <= side <= 2**15 for side in sides):
        raise ValueError(f"got {value!r}, expected an integer or [height, width], each at least 16 and at most {2**15}")
    return value if isinstance(value, int) else tuple(value)


# Names become folder names and words of shell commands in dvc.yaml, hence no other characters.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(ge=1e-12, le=1e12)]
NonNegative = Annotated[float, Field(ge=0)]
Jitter = Annotated[float, Field(ge=0, le=0.9)]
# The upper bound is that of a 32-bit integer, which counts become in NumPy and torch.
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Crop = Annotated[int | tuple[int, int], PlainValidator(_crop), WithJsonSchema({"type": "integer", "minimum": 16})]
AtLeastOne = Annotated[int, Field(ge=1, le=2**31 - 1)]
# YAML has lists, a frozen model has tuples: the only conversion that is not strict.
Several = Annotated[tuple[T, ...], Field(strict=False)]
# Keyword options of something pluggable, checked by what takes them.
Options = Annotated[dict[str, Any], AfterValidator(_finite)]

# Later additions are written only where they say something: what is made without them (detectors, groups of runs) stays
# what it was, and readable by versions that do not know them.
_ONLY_IF_SET = Field(exclude_if=lambda value: not value)
_MORE_THAN_DISPERSION = Field(exclude_if=lambda kinds: kinds == ("dispersion",))

# The names of the registries, which lie in rooms above this one; tests/config compares them.
# fmt: off
Architecture = Literal[
    "deeplabv3plus_wrn38", "dualgcnnet_r50", "dualgcnnet_r101", "deeplabv3plus_mini", "dualgcn_mini", "erfnet",
    "espnetv2", "torchvision/fcn_resnet50", "torchvision/fcn_resnet101", "torchvision/lraspp_mobilenet_v3_large",
    "torchvision/deeplabv3_resnet50", "torchvision/deeplabv3_resnet101", "torchvision/deeplabv3_mobilenet_v3_large",
    "transformers", "smp/Unet", "smp/UnetPlusPlus", "smp/MAnet", "smp/Linknet", "smp/FPN", "smp/PSPNet",
    "smp/DeepLabV3", "smp/DeepLabV3Plus", "smp/PAN", "smp/UPerNet", "smp/Segformer",
]
Reader = Literal[
    "cityscapes", "coco", "folder", "lost_and_found", "road_anomaly", "road_anomaly21", "road_obstacle21",
    "fishyscapes", "fishyscapes_lost_and_found", "fishyscapes_processed", "fishyscapes_static",
]
# fmt: on
Loss = Literal["entropy_maximization", "outlier_exposure", "energy_hinge", "unknown_class", "cross_entropy"]
# Computed beside the logits, in infer.scores; the other scores are made of the stored logits at any time.
# fmt: off
StoredScore = Literal[
    "kl_to_prior", "smoothed_standardised_max_logit", "mahalanobis", "relative_mahalanobis", "knn", "prototype_cosine",
    "vim", "react", "ash", "scale", "rba", "no_object", "predictive_entropy", "expected_entropy", "mutual_information",
    "predictive_variance",
]
# fmt: on
# of several passes, see RepetitionParams
REPEATED_SCORES = ("predictive_entropy", "expected_entropy", "mutual_information", "predictive_variance")
Score = Literal["entropy", "max_softmax", "max_logit", "energy", "margin", "generalised_entropy", StoredScore]
ReportedScore = Literal[Score, "standardised_max_logit"]
ReaderName = Annotated[str, _check_name(Reader), _with_own(Reader)]
_TIMM = "timm/BACKBONE"  # any model of timm
ArchitectureName = Annotated[str, _check_name(Architecture, _TIMM), _with_own(Architecture, _TIMM)]
# entropy, margin and max_softmax are published features
FeatureScore = Literal["max_logit", "energy", "generalised_entropy", StoredScore]
ScoreName = Annotated[str, _check_name(Score), _with_own(Score)]
ReportedScoreName = Annotated[str, _check_name(ReportedScore), _with_own(ReportedScore)]
FeatureKind = Literal["dispersion", "scores"]
Protocol = Literal["exact", "published", "fishyscapes", "smiyc", "per_image_mean", "resized_512x1024"]
Classifier = Literal["logistic_regression", "sparse_logistic_regression", "gradient_boosted_trees", "small_network"]
Variant = Literal["baseline", "ood_trained"]
VARIANTS: tuple[str, ...] = get_args(Variant)
# scores in [0, 1]; the others have no bounds
IN_UNIT_RANGE = ("entropy", "max_softmax", "margin", "generalised_entropy")
# tf32: products of operands with 10 bits of mantissa, on NVIDIA GPUs (elsewhere the same as float32); bfloat16:
# autocast. Weights and stored logits are always float32.
Precision = Literal["float32", "tf32", "bfloat16"]


class Section(BaseModel):
    """A frozen section of params.yaml without other keys than its fields."""

    # strict: "1" is no number, 1 is not true
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class RoleSet(Section):
    """One prepared dataset in a role."""

    dataset: Name  # a name of the section datasets
    # share of the role's samples that are drawn from it; none: every frame counts alike. 0, in the role training: only
    # its known objects are used
    weight: Annotated[float, Field(ge=0, le=1e12)] | None = None
    scale: Annotated[float, Field(ge=0.1, le=10)] = 1.0  # further enlarges its frames, for cameras with few pixels


def _role_sets(given: Any) -> Any:
    """Write a name, or a list of names and entries, as a list of entries."""
    entries = given if isinstance(given, list | tuple) else [given]
    return [{"dataset": entry} if isinstance(entry, str) else entry for entry in entries]


def _checked_role(sets: tuple[RoleSet, ...]) -> tuple[RoleSet, ...]:
    names = [entry.dataset for entry in sets]
    if len(set(names)) != len(names) or not names:
        raise ValueError(f"expected one dataset or several different ones, got {names}")
    if len({entry.weight is None for entry in sets}) > 1:
        missing = [entry.dataset for entry in sets if entry.weight is None]
        raise ValueError(f"expected a weight for each dataset or for none; {missing} have none")
    if all(entry.weight == 0 for entry in sets):
        raise ValueError(f"expected a weight above 0 for one dataset at least, got 0 for {names}")
    return sets


def _shortest(sets: tuple[RoleSet, ...]) -> Any:
    """Write a role as shortly as params.yaml may: so that a plain name stays one in tracking."""
    entries = [entry.model_dump(exclude_defaults=True) for entry in sets]
    short = [entry["dataset"] if len(entry) == 1 else entry for entry in entries]
    return short[0] if isinstance(short[0], str) and len(short) == 1 else short


_NAME_OR_ENTRY = {"anyOf": [{"type": "string"}, {"type": "object"}]}
Role = Annotated[
    Several[RoleSet],
    BeforeValidator(_role_sets),
    AfterValidator(_checked_role),
    PlainSerializer(_shortest),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": _NAME_OR_ENTRY}]}),
]


class RolesParams(Section):
    """Which prepared datasets play which part in training."""

    training: Role  # labelled frames, or ordinary ones without labels
    validation: Role  # known classes: chooses and reports, never trains
    proxies: Role  # objects that stand for everything unknown

    @model_validator(mode="after")
    def _unused_sets(self) -> Self:
        for role in ("validation", "proxies"):
            if unused := [entry.dataset for entry in getattr(self, role) if entry.weight == 0]:
                raise ValueError(f"{role}: expected a weight above 0 for {unused}; only training may have 0")
        return self


class SynthesizeParams(Section):
    """The demo world: frame size [px] and number of frames of each dataset."""

    # smaller frames have no room for a car and an obstacle
    height: Annotated[int, Field(ge=64, le=4096)]
    width: Annotated[int, Field(ge=128, le=8192)]
    cityscapes_train: AtLeastOne
    cityscapes_val: AtLeastOne
    coco: AtLeastOne
    lost_and_found: AtLeastOne
    fishyscapes: AtLeastOne


class DatasetParams(Section):
    """One prepared dataset: a reader, its raw root, a split and the reader's options."""

    reader: ReaderName  # what knows the layout: docs/datasets.md
    root: Annotated[str, Field(min_length=1)]  # folder of the raw data
    split: str  # a split of the layout
    options: Options = {}  # the reader's own


class OptimisationParams(Section):
    """The section `pretrain` (cross entropy from scratch), and what `train` has in common with it."""

    epochs: AtLeastOne  # an epoch sees each street frame once, or `samples`
    batch_size: AtLeastOne  # frames a step, of all processes together
    crop: Crop  # [px] side of a square, or [height, width]
    learning_rate: Positive  # at the start
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: NonNegative = 0.0  # of the optimizer
    schedule: Literal["constant", "cosine", "poly"] = "constant"  # of the learning rate over the steps
    scale_jitter: Jitter = 0.0  # s: a factor in [1 - s, 1 / (1 - s)], log-uniform
    colour_jitter: Jitter = 0.0  # brightness, contrast and saturation vary by 1 ± this
    photometric: Annotated[float, Field(ge=0, le=3)] = 0.0  # strength of varied gamma, contrast, colours, blur, noise
    gradient_clip: NonNegative = 0.0  # largest norm of the gradient; 0: no limit
    accumulate: AtLeastOne = 1  # batches a step
    ema: Fraction = 0.0  # decay of an average of the weights that is validated and kept; 0: none
    precision: Precision = "float32"  # tf32 and bfloat16 need hardware: decision 0022
    # street samples in an epoch; 0: as many as there are frames; the plan of an epoch lies in memory
    samples: Annotated[int, Field(ge=0, le=10**7)] = 0
    checkpoint_every: AtLeastOne = 100  # [steps] between states that a killed training goes on from
    validate_every: AtLeastOne = 1  # [epochs]
    keep: Literal["last", "best"] = "last"  # weights of the last epoch, or the best that validation saw
    patience: Count = 0  # validations without an improvement after which training ends; 0: never
    # batch statistics (published), or those of the weights that training starts from
    batch_norm: Literal["train", "frozen"] = "train"
    compile: bool = False  # run the network through torch.compile


class TrainParams(OptimisationParams):
    """OoD training (docs/method.md)."""

    loss: Loss = "entropy_maximization"  # the objective
    loss_options: Options = {}  # the loss's own
    ood_weight: Fraction = 0.9  # λ, weight of the OoD term
    ood_weight_ramp: Fraction = 0.0  # share of the training over which λ rises from 0
    proxy_ratio: NonNegative = 0.1  # proxies per street frame in an epoch
    proxy_redraw: bool = True  # draw other proxies in each epoch
    # images as they are, or objects pasted into street frames
    proxy_style: Literal["whole", "pasted", "on_road"] = "whole"
    # on_road: probabilities that known objects are pasted into a crop with proxies, and into one without
    known_objects: Fraction = 0.0
    known_objects_clean: Fraction = 0.0
    proxy_margin: Annotated[int, Field(ge=0, le=64)] = 0  # [px] at the edge of OoD regions that are left out
    class_balance: Fraction = 0.0  # power of the class weights in the cross entropy; 0: all classes count alike
    proxy_holdout: Fraction = 0.1  # share of the proxies that are used for validation instead of training
    reset_optimizer: bool = False  # forget the optimizer's state at each epoch, as published
    distillation: NonNegative = 0.0  # weight of the divergence from the baseline's predictions, in-distribution
    interpolation: Fraction = 1.0  # a: the stored weights are a * trained + (1 - a) * baseline

    @model_validator(mode="after")
    def _known_objects_belong_to_on_road(self) -> Self:
        if self.proxy_style != "on_road" and (self.known_objects or self.known_objects_clean):
            raise ValueError("known_objects and known_objects_clean need proxy_style: on_road")
        return self


class NetworkParams(Section):
    """One network: an architecture, its options, and what differs from the common sections."""

    architecture: ArchitectureName  # what builds the network
    options: Options = {}  # of the architecture
    pretrain: Options = {}  # values over the section pretrain
    train: Options = {}  # values over the section train
    # Files: baseline and ood_trained, as `meta-ood weights import` stores them, are taken instead of training;
    # training begins at backbone, the weights of an image classifier.
    weights: dict[Literal["baseline", "ood_trained", "backbone"], str] = {}


class RepetitionParams(Section):
    """Several passes of the same image, the members: their spread is a score. Every kind multiplies their number."""

    dropout: Count = 0  # passes of each network with active dropout layers (MC dropout); 0: one without
    # of what is dropped; k passes draw from seed to seed + k - 1, alike in every frame
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    views: bool = False  # each flip and scale is a member; else the average of all is one
    # further weights files of the architecture (an ensemble); {network} and {variant} are filled in
    weights: Several[str] = ()

    @model_validator(mode="after")
    def _repeats(self) -> Self:
        if not (self.dropout or self.views or self.weights):
            raise ValueError("expected dropout above 0, views: true or weights: without them there is a single pass")
        return self

    def files(self, network: str, variant: str) -> list[Path]:
        """Return the weights files for a network and variant."""
        return [Path(name.replace("{network}", network).replace("{variant}", variant)) for name in self.weights]


class InferParams(Section):
    """From images to stored logits."""

    precision: Precision = "float32"  # of the forward pass; stored logits are float32 rounded to 16 bits
    # (height, width) [px] at which the network sees every frame; null: as it is. Results have the frame's own size
    size: Annotated[Several[AtLeastOne], AfterValidator(_height_and_width)] | None = None
    flip: bool = False  # average over the mirrored frame
    scales: Several[Positive] = (1.0,)  # average over frames of these sizes
    tile: Count = 0  # [px] side of overlapping windows; 0: the whole frame
    batch_size: AtLeastOne = 1  # frames of one size in a forward pass; more change the last bits (decision 0071)
    scores: Several[StoredScore] = ()  # those that need more than the logits are computed here and stored beside them
    # passes for mutual_information and the like; null: none
    repetition: Annotated[RepetitionParams | None, _ONLY_IF_SET] = None

    @model_validator(mode="after")
    def _repetition_fits(self) -> Self:
        needing = ", ".join(name for name in self.scores if name in REPEATED_SCORES)
        if self.repetition is None:
            if needing:
                raise ValueError(f"scores: {needing} need infer.repetition: dropout, views or weights")
            return self
        if not needing:
            raise ValueError(f"repetition: expected one of {', '.join(REPEATED_SCORES)} in infer.scores, got none")
        if self.repetition.views and not self.flip and len(self.scales) == 1:
            raise ValueError("repetition.views: true needs infer.flip or several infer.scales")
        if self.batch_size > 1:
            raise ValueError(f"batch_size: got {self.batch_size}, expected 1 beside repetition, frame by frame")
        return self


class SegmentsParams(Section):
    """The score and the threshold that make OoD segments."""

    score: ScoreName = "entropy"  # which one makes segments
    threshold: float = 0.7  # a pixel is OoD if its score is at least this
    # scores whose means and variances in a segment are measured too, for meta.features
    features: Annotated[Several[FeatureScore], _ONLY_IF_SET] = ()


class MetaParams(Section):
    """The meta classifier, the sets that train it, its folds and its operating point."""

    # null: each evaluation set has a classifier of its own (published); else one for all sets, fitted on these together
    train_on: Several[Name] | None = None
    classifier: Classifier = "logistic_regression"  # its kind
    classifier_options: Options = {}  # of its kind
    folds: Literal["scene", "image", "leave_one_out", "published"] = "scene"  # what is left out to judge a segment
    # dispersion: the published ones; scores: those of segments.features, beside them
    features: Annotated[Several[FeatureKind], AfterValidator(_with_dispersion), _MORE_THAN_DISPERSION] = ("dispersion",)
    operating_point: Fraction = 0.5  # a segment is removed if P(false) is above
    max_lost: Fraction | None = None  # instead: the most true segments, as a fraction, that may be lost
    bootstrap: Count = 100  # samples behind the weights' intervals; 0: none


class OperatingPointParams(Section):
    """How many false alarms there may be, and the frames that choose the threshold on severity which keeps to that."""

    false_alarms: NonNegative  # the budget
    # fraction of frames with a false alarm, fraction of scenes that have any, or frames with one a minute
    per: Literal["frame", "scene", "minute"] = "frame"
    frames_per_minute: Positive | None = None  # where it is per minute
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95  # of the promise
    calibrate_on: Several[Name]  # evaluation sets of ordinary frames that train nothing
    unit: Literal["scene", "frame"] = "scene"  # what can be exchanged; frame: every frame is a scene of its own

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.per == "minute") != (self.frames_per_minute is not None):
            raise ValueError(f"frames_per_minute: got {self.frames_per_minute} for false alarms per {self.per}")
        if (self.per, self.unit) == ("scene", "frame"):
            raise ValueError("unit: got 'frame', expected 'scene' for false alarms per scene")
        # what no data can promise is refused here, before networks are trained
        most = self.frames_per_minute or 1
        if not 0 < self.false_alarms < most:
            raise ValueError(
                f"false_alarms: got {self.false_alarms:g}, expected more than 0 and less than {most:g} per {self.per}"
            )
        if not self.calibrate_on:
            raise ValueError("calibrate_on: got no set, expected sets of ordinary frames, which choose the threshold")
        return self


class EvaluateParams(Section):
    """Reported scores and protocols, and the number of pictured frames."""

    # besides the score of the segments and the protocol exact, which are always there
    scores: Several[ReportedScoreName] = ("entropy",)
    protocols: Several[Protocol] = ("exact",)
    temperature: Positive = 1.0  # divides the logits before pixel scores and calibration; segments do not change
    bootstrap: Count = 200  # resamples of scenes behind the intervals; 0: none
    # component metrics of the score map leave out what is smaller than the track says
    component_track: Literal["all", "obstacle", "anomaly"] = "all"
    component_threshold: float | None = None  # null: that of the evaluated set's own best F1
    # by network and variant, chosen on another set; they take precedence over component_threshold
    component_thresholds: dict[Name, dict[Variant, float]] = {}
    pictures: Count = 4  # frames in the report

    def threshold_of(self, network: str, variant: str) -> float | None:
        """Return the given threshold of a network and variant, None if there is none."""
        given: dict[Any, float] = self.component_thresholds.get(network, {})
        return given.get(variant, self.component_threshold)


class DetectorParams(Section):
    """The evaluation set whose meta classifier goes into the detector, where ``meta.train_on`` is null."""

    meta_from: Name  # an evaluation set


class ReportParams(Section):
    """The report's title."""

    title: str = "meta-ood"  # of the page


class GateParams(Section):
    """What a version must show against the baseline to become champion."""

    dataset: Name = "lost_and_found"  # with OoD objects
    auprc_gain: Fraction = 0.0  # on `dataset`, AUPRC must rise and FPR95 fall by at least the gains
    fpr95_gain: Fraction = 0.0
    miou_dataset: Name = "cityscapes_val"  # with known classes
    miou_loss: Fraction = 0.01  # by how much mIoU may fall on `miou_dataset`
    promise_dataset: Name | None = None  # ordinary frames that must not refute the promise of operating_point
    criterion: Literal["point", "interval"] = "point"  # interval: the confidence intervals must not overlap either


class TrackingParams(Section):
    """Names in the tracking store, and the gate of the registry."""

    experiment: str = "meta-ood"  # in MLflow
    champion: GateParams = GateParams()


class Params(Section):
    """All of params.yaml."""

    # the largest seed of NumPy's and scikit-learn's generators
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)]
    networks: Several[Name]  # of the section network; the matrix is network x variant x evaluation set
    variants: Several[Variant]  # before and after OoD training
    evaluation_sets: Several[Name]  # of the section datasets
    roles: RolesParams
    synthesize: SynthesizeParams
    datasets: dict[Name, DatasetParams]
    network: dict[Name, NetworkParams]
    pretrain: OptimisationParams
    train: TrainParams
    infer: InferParams
    segments: SegmentsParams
    meta: MetaParams
    operating_point: OperatingPointParams | None = None  # null: meta.operating_point or meta.max_lost decides
    evaluate: EvaluateParams
    detector: DetectorParams
    report: ReportParams
    tracking: TrackingParams

    @model_validator(mode="after")
    def _names_are_defined(self) -> Self:
        """Check the names and values of one section against those of another."""
        # 1. names: (key, the section in which its name must be defined, name)
        evaluate = self.evaluate
        calibrate_on = self.operating_point.calibrate_on if self.operating_point else ()
        gate = self.tracking.champion  # its defaults need not exist
        gate_sets = [(key, getattr(gate, key)) for key in gate.model_fields_set if key.endswith("dataset")]
        for key, section, name in (
            *(("networks", "network", name) for name in self.networks),
            *(("evaluate.component_thresholds", "network", name) for name in evaluate.component_thresholds),
            *(("evaluation_sets", "datasets", name) for name in self.evaluation_sets),
            *((f"roles.{role}", "datasets", entry.dataset) for role, sets in self.roles for entry in sets),
            ("detector.meta_from", "evaluation_sets", self.detector.meta_from),
            *(("meta.train_on", "evaluation_sets", name) for name in self.meta.train_on or ()),
            *(("operating_point.calibrate_on", "evaluation_sets", name) for name in calibrate_on),
            *((f"tracking.champion.{key}", "datasets", name) for key, name in gate_sets if name),
        ):
            known = getattr(self, section)
            if name not in known:
                raise ValueError(f"{key}: {name!r} is not defined in {section}; {known_names(name, known)}")
        for key in ("networks", "variants", "evaluation_sets"):
            names = getattr(self, key)
            if len(set(names)) < len(names) or not (names or key == "evaluation_sets"):
                raise ValueError(f"{key}: got {list(names)}, expected at least one, each once")
        stored = get_args(StoredScore)
        measured = self.segments.features
        for key, scores in (
            ("segments.score", (self.segments.score,)),
            ("segments.features", measured),
            ("evaluate.scores", evaluate.scores),
        ):
            if missing := [name for name in scores if name in stored and name not in self.infer.scores]:
                raise ValueError(f"{key}: {', '.join(missing)} must be computed by `infer`: add it to infer.scores")
        if len(set(measured)) < len(measured):
            raise ValueError(f"segments.features: got {list(measured)}, expected each once")
        if "scores" in self.meta.features and not measured:
            raise ValueError("meta.features: scores are measured by `segments`: name them in segments.features")
        # 2. thresholds of the scores that lie in [0, 1]; the others have no bounds
        score = self.segments.score
        thresholds = {"evaluate.component_threshold": evaluate.component_threshold}
        thresholds |= {"segments.threshold": self.segments.threshold}
        for network, variants in evaluate.component_thresholds.items():
            thresholds |= {f"evaluate.component_thresholds.{network}.{key}": value for key, value in variants.items()}
        for key, value in thresholds.items():
            if score in IN_UNIT_RANGE and value is not None and not 0 <= value <= 1:
                raise ValueError(f"{key}: got {value}, expected 0 to 1, the range of {score}")
        # 3. one rule decides which segments are kept, on frames that did not train it
        if self.operating_point:
            if self.meta.train_on is None:
                raise ValueError("operating_point: needs meta.train_on, as it is a threshold for all sets")
            if self.meta.max_lost is not None:
                raise ValueError("meta.max_lost: got a number, expected null beside operating_point, which decides")
            if both := ", ".join(sorted({*self.meta.train_on} & {*calibrate_on})):
                raise ValueError(
                    f"operating_point.calibrate_on: {both} is in meta.train_on; frames that train the meta classifier "
                    "cannot promise anything about it"
                )
            for own in (*self.roles.training, *self.roles.proxies):
                if own.dataset in calibrate_on:
                    raise ValueError(f"operating_point.calibrate_on: {own.dataset} trains the networks")
        # 4. what a network has of its own, with the section that it goes into
        for name in self.network:
            self.pretrain_of(name)
            self.train_of(name)
        return self

    def network_params(self, name: str) -> NetworkParams:
        """Return the entry of network `name`; for an unknown one the error lists the known."""
        return lookup("network", self.network, name)

    def dataset_params(self, name: str) -> DatasetParams:
        """Return the entry of dataset `name`; for an unknown one the error lists the known."""
        return lookup("dataset", self.datasets, name)

    def pretrain_of(self, network: str) -> OptimisationParams:
        """Return the pretrain section with the network's own values over it."""
        own = self.network_params(network).pretrain
        return validated(OptimisationParams, {**dict(self.pretrain), **own}, f"network.{network}.pretrain")

    def train_of(self, network: str) -> TrainParams:
        """Return the train section with the network's own values over it."""
        own = self.network_params(network).train
        return validated(TrainParams, {**dict(self.train), **own}, f"network.{network}.train")
