import dataclasses
from pathlib import Path

import pytest
import yaml

from meta_ood import config

ROOT = Path(__file__).parents[2]
CONFIGS = [ROOT / "params.yaml", *sorted((ROOT / "configs").glob("*.yaml"))]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_committed_configurations_load(path: Path) -> None:
    assert config.load(path).networks


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.foo=1", "train.foo: unknown key; known: epochs"),
        (
            "train.ood_weight=2",
            "train.ood_weight: 2.0 is out of range; expected a number in [0",
        ),
        ("train.learning_rate=1e-5", "reads '1e-5' as a string.*1.0e-05"),
        ("train.learning_rate=fast", "expected a number at least 1e-12, got the string 'fast'"),
        ("train.epochs=1.5", "expected an integer at least 1, got float 1.5"),
        ("train.epochs=true", "expected an integer at least 1, got bool True"),
        ("train.proxy_redraw=1", "expected true or false, got int 1"),
        ("train.optimizer=lbfgs", "expected one of adam, adamw, sgd"),
        ("networks=deeplabv3plus_mini", "networks: expected a list of a string"),
        (
            "networks=[nope]",
            "networks: 'nope' is not defined in network; known: deeplab",
        ),
        ("evaluation_sets=[mars]", "'mars' is not defined in datasets; known: .*lost_and_found"),
        ("roles.proxies=mars", "roles.proxies: 'mars' is not defined"),
        ("network.dualgcn_mini.train={epochs: -1}", "network.dualgcn_mini.train.epochs: -1 is out"),
        ("network.dualgcn_mini.weights={trunk: a.pth}", "weights.trunk: unknown key"),
        ("network.dualgcn_mini.weights={trunk: a.pth}", "trunk is called backbone now"),
        ("network.dualgcn_mini.train={steps: 1}", "network.dualgcn_mini.train.steps: unknown key"),
        ("seed=", "seed: expected an integer at least 0, got nothing"),
        ("segments.threshold=.nan", "segments.threshold: nan"),
        ("segments", "expected key=value"),
        ("nowhere.x=1", "nowhere: no such section"),
        ("seed.x=1", "seed is not a section"),
        ("infer.scales=[1, 0]", r"infer.scales\[1\]: 0.0 is out of range"),
    ],
)
def test_errors_name_the_key_and_what_was_expected(override: str, message: str) -> None:
    pattern = message if "'1e-5'" in message or ".*" in message or "\\" in message else None
    with pytest.raises(config.ConfigError) as raised:
        config.load(ROOT / "params.yaml", [override])
    if pattern is None:
        assert message in str(raised.value)
    else:
        assert raised.match(pattern)
    assert "params.yaml" in str(raised.value)


def test_the_number_recommended_for_a_string_is_a_number_for_yaml() -> None:
    with pytest.raises(config.ConfigError) as raised:
        config.load(ROOT / "params.yaml", ["train.learning_rate=3e-4"])
    recommended = str(raised.value).rsplit(": ", 1)[1].rstrip(")")
    assert yaml.safe_load(recommended) == 3e-4


def test_missing_key_is_named(tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    del values["train"]["crop"]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(config.ConfigError, match=r"train\.crop: missing; expected an integer"):
        config.load(path)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match="no such file"):
        config.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(config.ConfigError, match=r"bad\.yaml"):
        config.load(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(config.ConfigError, match="expected a mapping"):
        config.load(tmp_path / "list.yaml")


def test_a_network_overrides_the_common_sections() -> None:
    params = config.load(ROOT / "params.yaml", ["network.dualgcn_mini.train={ood_weight: 0.25}"])
    assert params.train_of("dualgcn_mini").ood_weight == 0.25
    assert params.train_of("deeplabv3plus_mini") == params.train
    assert config.stage_values(params, "train", network="dualgcn_mini")["train.ood_weight"] == 0.25


def test_sections_are_sections_of_the_file() -> None:
    names = {f.name for f in dataclasses.fields(config.Params)}
    for sections in config.SECTIONS.values():
        assert {section.split(".")[0] for section in sections} <= names


def test_params_are_frozen() -> None:
    params = config.load(ROOT / "params.yaml")
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.train.ood_weight = 0.1  # type: ignore[misc]
