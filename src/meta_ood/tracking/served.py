"""The detector as an MLflow model, and MLflow's scoring server with limits around it.

Models from code: a version holds this three-line program and a detector's folder; no pickle. It also holds the package
as a wheel and names the exact version of everything that this needs, so that ``mlflow models serve`` and
``build-docker`` make its environment where the repository never was.
"""

import base64
import logging
import os
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import yaml

from meta_ood import __version__
from meta_ood.detector import demo, server
from meta_ood.detector.detector import Detector
from meta_ood.detector.folder import SETTINGS
from meta_ood.tracking.wheel import installed_requirements, write_wheel

CODE = """\
from mlflow.models import set_model

from meta_ood.tracking.served import model

set_model(model())
"""

FOLDER = "detector"  # name of the model's artifact, the detector's folder
WHEELS = "wheels"  # folder of the package's wheel
# `meta-ood` itself answers with the code installed here, whose version is never that of a wheel: no warning of that
logging.getLogger("mlflow.utils.requirements_utils").setLevel(logging.ERROR)


def model() -> Any:
    """Return the MLflow model that answers as :func:`meta_ood.detector.server.answers` does."""
    # MLflow's model classes are slow to import and warn
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
    from mlflow.pyfunc.model import PythonModel, PythonModelContext

    # MLflow asks for type hints, see below, and its own filter would show it in spite of an "ignore" here
    with warnings.catch_warnings(record=True):

        class Served(PythonModel):
            """The model that the scoring server calls."""

            def load_context(self, context: PythonModelContext) -> None:
                """Load the detector once, when the server starts."""
                self.detector = Detector.load(Path(context.artifacts[FOLDER]))
                self.limits = server.Limits.from_environment()

            # without hints: MLflow would take them for the schema of a request
            def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
                """Return one answer per image; the error for a wrong request says what is expected."""
                maps = bool((params or {}).get("maps", True))
                try:
                    return list(server.answers(self.detector, model_input, self.limits, maps))
                except server.RequestError as error:
                    raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from None

    return Served()


def pack(folder: Path, detector: Path) -> None:
    """Write a detector's folder as an MLflow model: a three-line program, a copy, and the package as a wheel."""
    # imported here: the import takes seconds and prints warnings
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType, ColSpec

    code = folder.with_name("detector_model.py")
    code.write_text(CODE, encoding="utf-8")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    wheels = folder.with_name(WHEELS)
    wheels.mkdir(exist_ok=True)
    own = write_wheel(wheels)
    with warnings.catch_warnings(record=True):  # MLflow asks for type hints
        pyfunc.save_model(
            str(folder),
            python_model=str(code),
            artifacts={FOLDER: str(detector)},
            signature=ModelSignature(
                inputs=Schema([ColSpec(AnyType(), "image")]),  # type: ignore[no-untyped-call]
                params=ParamSchema([ParamSpec("maps", "boolean", True)]),
            ),
            input_example={"image": [base64.b64encode((demo.PHOTOS / "box.jpg").read_bytes()).decode("ascii")]},
            # pip and uv look for the folder beside the file that names it, whatever the working directory
            pip_requirements=[f"--find-links {WHEELS}", own, *installed_requirements()],
        )
    shutil.move(wheels, folder / WHEELS)
    # MLflow asks for the very patch release of Python; the wheel is for each of its minor version
    environment = folder / "python_env.yaml"
    content = yaml.safe_load(environment.read_text(encoding="utf-8"))
    content["python"] = f"{sys.version_info.major}.{sys.version_info.minor}"
    environment.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def application(model: str) -> Any:
    """Return MLflow's scoring server of a detector as an ASGI application, with limits around it.

    `model` is a detector's folder, or a model URI of MLflow such as ``models:/deeplabv3plus_mini@champion``.
    """
    import mlflow
    from fastapi.responses import JSONResponse
    from fastapi.routing import APIRoute
    from mlflow.pyfunc import load_model, scoring_server

    def unreadable(request: Any, error: Exception) -> JSONResponse:
        reason = "is nested too deeply" if isinstance(error, RecursionError) else f"cannot be read: {error}"
        return JSONResponse({"error_code": "BAD_REQUEST", "message": f"the JSON {reason}"}, 400)

    if Path(model, SETTINGS).is_file():
        with tempfile.TemporaryDirectory() as folder:
            packed = Path(folder, "model")
            pack(packed, Path(model))
            loaded = load_model(str(packed))
    else:
        loaded = load_model(model)
    application = scoring_server.init(loaded)
    # MLflow's /health says that the model is loaded, its /version only which MLflow this is: the first route answers
    served = loaded.unwrap_python_model().detector.identity  # type: ignore[no-untyped-call]
    about = {"meta_ood": __version__, "mlflow": mlflow.__version__, "detector": served}
    application.router.routes.insert(0, APIRoute("/version", lambda: JSONResponse(about)))
    application.add_middleware(server.Guard, limits=server.Limits.from_environment())
    for kind in (RecursionError, ValueError):  # the latter for numbers of thousands of digits
        application.add_exception_handler(kind, unreadable)
    return application
