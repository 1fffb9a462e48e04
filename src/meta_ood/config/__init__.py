"""params.yaml as frozen dataclasses: strict, read once, imports nothing heavy.

Every section is a frozen dataclass; :func:`load` checks keys, types and ranges and names the
offending key together with what was expected.
"""

from meta_ood.config.files import load, read_yaml
from meta_ood.config.schema import (
    DatasetParams,
    DetectorParams,
    EvaluateParams,
    GateParams,
    InferParams,
    MetaParams,
    NetworkParams,
    OptimisationParams,
    Params,
    PretrainParams,
    ReportParams,
    RolesParams,
    SegmentsParams,
    SynthesizeParams,
    TrackingParams,
    TrainParams,
)
from meta_ood.config.stages import SECTIONS, describe, stage_values
from meta_ood.config.strict import ConfigError

__all__ = [
    "SECTIONS",
    "ConfigError",
    "DatasetParams",
    "DetectorParams",
    "EvaluateParams",
    "GateParams",
    "InferParams",
    "MetaParams",
    "NetworkParams",
    "OptimisationParams",
    "Params",
    "PretrainParams",
    "ReportParams",
    "RolesParams",
    "SegmentsParams",
    "SynthesizeParams",
    "TrackingParams",
    "TrainParams",
    "describe",
    "load",
    "read_yaml",
    "stage_values",
]
