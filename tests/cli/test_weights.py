import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from meta_ood import models, tracking
from meta_ood.cli import main
from meta_ood.data.files import file_hash

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        return CliRunner().invoke(main, ["weights", *map(str, arguments)])

    return call


def importing(*more):
    return (*("import", "file.pth", "--params", PARAMS, "--network", "dualgcn_mini"), *("--variant", "baseline", *more))


def test_import_stores_and_says_how_to_use_it(run):
    network = models.build("dualgcn_mini", 19)
    torch.save({"state_dict": network.state_dict()}, "file.pth")
    result = run(*importing("--no-track", "--origin", "a paper"))
    assert result.exit_code == 0, result.output
    assert f"matched     {len(network.state_dict())}\nmissing     0\n" in result.output
    stored = "data/weights/dualgcn_mini/baseline.safetensors"
    assert f"network.dualgcn_mini.weights: {{baseline: {stored}}}" in result.output
    shown = run("show", stored)
    assert json.loads(shown.output)["origin"]["source"] == "a paper"


def test_nothing_is_stored_or_registered_when_the_file_does_not_fit(run, monkeypatch):
    def registering(*_, **__):
        raise AssertionError("the registry was touched")

    monkeypatch.setattr(tracking, "run", registering)
    torch.save(models.build("dualgcn_mini", 5).state_dict(), "file.pth")
    result = run(*importing())
    assert result.exit_code == 2
    assert "for 5 classes, the network has 19" in result.output
    assert [path.name for path in Path().iterdir()] == ["file.pth"]


@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_the_registry_holds_what_was_imported_and_nothing_of_what_was_refused(run, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    for name in ("MLFLOW_RUN_ID", "MLFLOW_TRACKING_URI", "DVC_STAGE", "DVC_ROOT", "RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("META_OOD_TRACKING", "on")
    folder = Path.cwd()
    torch.save(models.build("dualgcn_mini", 19).state_dict(), "file.pth")
    result = run(*importing("--origin", "a paper"))
    assert result.exit_code == 0, result.output
    stored = Path("data/weights/dualgcn_mini/baseline.safetensors")

    def registry():
        store = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
        versions = store.search_model_versions("")
        aliases = {model.name: model.aliases for model in store.search_registered_models()}
        return aliases, [(v.name, v.version, v.run_id, v.tags) for v in versions]

    aliases, ((name, version, _, tags),) = before = registry()
    assert aliases == {name: {"baseline": version}} == {"dualgcn_mini": {"baseline": version}}
    assert tags["weights.md5"] == file_hash(stored, "md5")
    disk = {path: path.read_bytes() for path in folder.rglob("*.safetensors")}

    torch.save(models.build("dualgcn_mini", 5).state_dict(), "file.pth")
    assert run(*importing()).exit_code == 2
    assert registry() == before
    assert {path: path.read_bytes() for path in folder.rglob("*.safetensors")} == disk


def test_unknown_network_lists_the_known_ones(run):
    result = run(*importing("--network", "unet"))
    assert result.exit_code == 2
    assert "dualgcn_mini" in result.output


def test_networks_are_listed_with_their_costs():
    result = CliRunner().invoke(main, ["networks"])
    assert result.exit_code == 0, result.output
    rows = {line.split()[0]: line.split()[1:] for line in result.output.splitlines()[1:]}
    assert {*models.MODELS, "timm/BACKBONE"} <= set(rows)
    assert rows["deeplabv3plus_wrn38"][:3] == ["137,103,936", "2", "11,650"]
    assert float(rows["deeplabv3plus_wrn38"][3]) < 4  # GB, on the CPU
    own = [name for name in models.MODELS if models.library_of(name) is None]
    assert all(float(rows[name][3]) > 0.5 for name in own)  # torch alone takes that
    assert rows["dualgcnnet_r50"][:2] == ["53,514,470", "8"]
