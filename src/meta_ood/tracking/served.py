"""The detector as an MLflow model: what `mlflow models serve` and `mlflow.pyfunc.load_model` call.

Models from code: a version holds this three-line program, safetensors and JSON; no pickle.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from meta_ood.detector import serving

CODE = """\
from mlflow.models import set_model

from meta_ood.tracking.served import model

set_model(model())
"""


def model() -> Any:
    """Return the model whose answers are :func:`meta_ood.detector.serving.answer`."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
    from mlflow.pyfunc.model import (
        PythonModel,
        PythonModelContext,
    )  # heavy, and not without warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's wish for type hints: see below

        class Served(PythonModel):
            """Images in, answers out."""

            def load_context(self, context: PythonModelContext) -> None:
                """Load the detector once, when the server starts."""
                files = {name: Path(path) for name, path in context.artifacts.items()}
                self.detector = serving.Detector.load(
                    files["weights"], files["settings"], files.get("classifier")
                )

            # without hints: MLflow would take them for the schema of a request
            def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
                """Return one answer an image; anything else is told what is expected."""
                maps = bool((params or {}).get("maps", True))
                try:
                    images = [serving.read_image(given) for given in serving.images_of(model_input)]
                except serving.ImageError as error:
                    raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from None
                return [serving.answer(self.detector.detect(image), maps) for image in images]

    return Served()
