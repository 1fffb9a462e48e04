"""Runs and models in MLflow; no other part of the package imports it.

A stage that trains, and every stage that is started by hand, writes its run to the store while it works. The short
stages of a pipeline import no mlflow: ``meta-ood sync`` records their runs from dvc.lock and their outputs, and the
stage ``report`` does the same when it starts. Why this is so is decision 0070.

No error of the store stops a stage: it is logged as a warning, and `sync` records the stage later.
``META_OOD_TRACKING=off`` switches tracking off.
"""

from meta_ood.tracking.location import TrackingError
from meta_ood.tracking.recorder import Recorder, run

__all__ = ["Recorder", "TrackingError", "run"]
