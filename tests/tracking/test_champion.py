"""A promoted detector in the registry, and the answer of what is loaded from there."""

import base64
import shutil
from pathlib import Path

import pytest

from detector_parts import Parts
from meta_ood import Detector, tracking
from meta_ood.detector.server import answer
from meta_ood.tracking import champion
from meta_ood.tracking.store import open_store


@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_a_detector_is_registered_once_and_answers(work, tmp_path_factory, monkeypatch):
    import mlflow

    parts = Parts(tmp_path_factory.mktemp("parts"))
    folder = shutil.copytree(parts.detector, work / "data/detectors/mini/baseline")
    with pytest.raises(ValueError, match="is no registered version of mini; `meta-ood sync`"):
        champion.promote(work, "mini", "baseline", folder)
    weights = Path("data/networks/mini/baseline.safetensors")
    weights.parent.mkdir(parents=True)
    shutil.copy(parts.weights, weights)
    with tracking.run("pretrain", keys={"network": "mini"}, params={}, inputs={}) as run:
        run.outputs({"weights": weights})

    first = champion.promote(work, "mini", "baseline", folder)
    again = champion.promote(work, "mini", "baseline", folder)
    assert first.version == again.version
    store = open_store(work)
    assert store.get_model_version_by_alias("mini", "champion").version == first.version
    tags = store.get_model_version("mini", first.version).tags
    assert (tags["kind"], tags["variant"], tags["meta.dataset"]) == (*("detector", "baseline"), "frames")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{work}/mlflow.db")
    model = mlflow.pyfunc.load_model("models:/mini@champion")
    content = base64.b64encode(parts.frames[0].image.read_bytes()).decode()
    expected = answer(Detector.load(folder, "cpu")(parts.frames[0].image))
    assert model.predict({"image": [content]}) == [expected]
