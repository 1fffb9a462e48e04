"""params.yaml as frozen pydantic models: :func:`load` reads and checks it, nothing else does.

Every section is a model of :mod:`meta_ood.config.schema`. What is wrong is found here, before any stage runs: unknown
keys and names, wrong types, values out of range.
"""

from meta_ood.config.errors import ConfigError
from meta_ood.config.files import load, read_yaml
from meta_ood.config.schema import (
    IN_UNIT_RANGE,
    VARIANTS,
    DatasetParams,
    EvaluateParams,
    GateParams,
    InferParams,
    MetaParams,
    NetworkParams,
    OperatingPointParams,
    OptimisationParams,
    Params,
    RoleSet,
    RolesParams,
    SegmentsParams,
    SynthesizeParams,
    TrainParams,
)
from meta_ood.config.stages import SECTIONS, describe, flat, stage_values
