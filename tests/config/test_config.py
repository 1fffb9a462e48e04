from pathlib import Path
from typing import get_args

import pydantic
import pytest
import yaml

from meta_ood import config
from meta_ood.config import files, schema
from meta_ood.datasets import READERS
from meta_ood.meta_classification import CLASSIFIERS, FOLDS
from meta_ood.metrics.component import TRACKS
from meta_ood.metrics.pixel import PROTOCOLS
from meta_ood.models import MODELS
from meta_ood.scores import SCORES
from meta_ood.training.losses import LOSSES

ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "params.yaml"


BOMB = "a0: &a0 [0]\n" + "".join(f"a{n}: &a{n} [{9 * f'*a{n - 1}, '}]\n" for n in range(1, 10))


def test_committed_configurations_load() -> None:
    for path in (PARAMS, *(ROOT / "configs").glob("*.yaml")):
        assert config.load(path).networks


def test_the_known_names_are_those_of_the_registries() -> None:
    for names, registry in (
        (schema.Architecture, MODELS),
        (schema.Reader, READERS),
        (schema.Loss, LOSSES),
        (schema.Score, SCORES),
        (schema.Protocol, PROTOCOLS),
        (schema.Classifier, CLASSIFIERS),
        (config.MetaParams.model_fields["folds"].annotation, FOLDS),
        (config.EvaluateParams.model_fields["component_track"].annotation, TRACKS),
    ):
        assert set(get_args(names)) == set(registry)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=1", "train.epoch: unknown key; known: accumulate, *did you mean epochs?"),
        ("train.ood_weight=2", "train.ood_weight: got 2, expected at most 1"),
        ("train.learning_rate=fast", "train.learning_rate: got 'fast', expected a number"),
        ("train.learning_rate=.inf", "train.learning_rate: got inf, expected a finite number"),
        ("train.learning_rate=1e29", "train.learning_rate: got 1e+29, expected at most *"),
        ("train.learning_rate='1e-5'", "train.learning_rate: got '1e-5', expected a number"),
        ("train.samples=2000000000", "train.samples: got 2000000000, expected at most 10000000"),
        ("train.crop=8", "train.crop: got 8, expected an integer or [height, width], each at least 16 and *"),
        ("train.crop=[320]", "train.crop: got [320], expected an integer or *"),
        ("pretrain.crop=[320, a]", "pretrain.crop: got [320, 'a'], expected an integer or *"),
        ("train.known_objects=0.5", "train: known_objects and known_objects_clean need proxy_style: on_road"),
        ("train.epochs=1.5", "train.epochs: got 1.5, expected an integer"),
        ("train.epochs=true", "train.epochs: got True, expected an integer"),
        ("train.proxy_redraw=1", "train.proxy_redraw: got 1, expected true or false"),
        ("train.optimizer=lbfgs", "train.optimizer: 'lbfgs' is unknown; known: adam, adamw, sgd"),
        ("train.loss=entropy_max", "train.loss: 'entropy_max' is unknown; *entropy_maximization?"),
        ("train.loss_options={a: [.nan]}", "train.loss_options: got nan, expected finite *"),
        ("train={}", "train.epochs: missing, expected an integer, at least 1*"),
        ("networks=mini", "networks: got 'mini', expected a list"),
        ("networks=[nope]", "networks: 'nope' is not defined in network; known: deeplab*"),
        ("evaluation_sets=[mars]", "evaluation_sets: 'mars' is not defined in datasets; known: *"),
        ("roles.proxies=mars", "roles.proxies: 'mars' is not defined in datasets; known: *"),
        ("roles.training=[coco, mars]", "roles.training: 'mars' is not defined in datasets; known: *"),
        ("roles.training=[coco, coco]", "roles.training: expected one dataset or several different ones, got *"),
        ("roles.training=[]", "roles.training: expected one dataset or several different ones, got []"),
        ("roles.training=[coco, {dataset: cityscapes_val, weight: 1}]", "roles.training: expected a weight for each*"),
        ("roles.training=[{dataset: coco, wight: 1}]", "roles.training.0.wight: unknown key; *did you mean weight?"),
        ("roles.training=[{dataset: coco, weight: 0}]", "roles.training: expected a weight above 0 for one *"),
        ("roles.proxies=[{dataset: coco, weight: 1}, {dataset: drive, weight: 0}]", "roles: *above 0 for ['drive']*"),
        ("roles.training=[{weight: 1}]", "roles.training.0.dataset: missing, expected a string"),
        ("roles.training=[{dataset: coco, scale: 0}]", "roles.training.0.scale: got 0, expected at least 0.1"),
        ("roles.proxies=3", "roles.proxies.0: got 3, expected a mapping"),
        ("networks=[dualgcn_mini, dualgcn_mini]", "networks: got *, expected at least one, each once"),
        ("networks=[]", "networks: got [], expected at least one, each once"),
        ("variants=[baseline, baseline]", "variants: got *, expected at least one, each once"),
        (
            "evaluation_sets=[cityscapes_val, lost_and_found, fishyscapes_static, lost_and_found]",
            "evaluation_sets: got *, expected at least one, each once",
        ),
        ("tracking.champion.dataset=lost_and_fund", "tracking.champion.dataset: *did you mean lost_and_found?"),
        ("tracking.champion.miou_dataset=val", "tracking.champion.miou_dataset: 'val' is not defined in datasets*"),
        ("variants=[trained]", "variants.0: 'trained' is unknown; *did you mean ood_trained?"),
        ("datasets.coco.reader=coc", "datasets.coco.reader: 'coc' is unknown; *mean coco?"),
        ("datasets.coco=3", "datasets.coco: got 3, expected a mapping"),
        ("datasets={a: {}}", "datasets.a.reader: missing, expected one of cityscapes, *"),
        ("datasets.a/b={}", "datasets.a/b: got 'a/b', expected a name of letters, *"),
        ("datasets={'x; touch f': {}}", "datasets.x; touch f: got 'x; touch f', expected a name*"),
        ("datasets={../../x: {}}", "datasets.../../x: got '../../x', expected a name of *"),
        ("network={--help: {}}", "network.--help: got '--help', expected a name of *"),
        ("networks=['$(f)']", "networks.0: got '$(f)', expected a name of letters, *"),
        ("tracking.champion.dataset='a b'", "tracking.champion.dataset: got 'a b', expected a *"),
        ("network.dualgcn_mini.train={epochs: 0}", "network.dualgcn_mini.train.epochs: got 0, *"),
        ("network.dualgcn_mini.train={steps: 1}", "network.dualgcn_mini.train.steps: unknown *"),
        ("network.dualgcn_mini.architecture=unet", "network.dualgcn_mini.architecture: 'unet' is*"),
        ("network.dualgcn_mini.weights={trunk: a}", "network.*'trunk' *called backbone now"),
        ("detector.meta_from=coco", "detector.meta_from: 'coco' is not defined in evaluation_set*"),
        ("seed=", "seed: got nothing, expected an integer"),
        ("seed=1" + 29 * "0", "seed: got 1*, expected at most 4294967295"),
        ("segments.score=enropy", "segments.score: 'enropy' is unknown; *did you mean entropy *"),
        ("segments.threshold=.nan", "segments.threshold: got nan, expected a finite number"),
        ("segments.threshold=7", "segments.threshold: got 7.0, expected 0 to 1, the range of *"),
        ("evaluate.component_threshold=-1", "evaluate.component_threshold: got -1.0, expected 0 *"),
        ("evaluate.protocols=[smi]", "evaluate.protocols.0: 'smi' is unknown; *mean smiyc?"),
        ("meta.classifier=logistic", "meta.classifier: 'logistic' is unknown; *regression*"),
        ("meta.max_lost=3", "meta.max_lost: got 3, expected at most 1"),
        ("meta.train_on=[coco]", "meta.train_on: 'coco' is not defined in evaluation_sets; known: *"),
        ("operating_point.calibrate_on=[coco]", "operating_point.calibrate_on: 'coco' is not defined in evaluation*"),
        ("operating_point.calibrate_on=[lost_and_found]", "operating_point.calibrate_on: lost_and_found is in meta.*"),
        ("roles.training=cityscapes_val", "operating_point.calibrate_on: cityscapes_val trains the networks"),
        ("meta.train_on=", "operating_point: needs meta.train_on*"),
        ("meta.max_lost=0.2", "meta.max_lost: got a number, expected null beside operating_point*"),
        ("operating_point.confidence=1", "operating_point.confidence: got 1*, expected less than 1"),
        ("operating_point.per=minute", "operating_point: frames_per_minute: got None for false alarms per minute"),
        ("operating_point.per=scene", "operating_point: unit: got 'frame', expected 'scene' for false alarms per *"),
        ("operating_point={per: frame}", "operating_point.false_alarms: missing, expected a number, at least 0*"),
        ("operating_point.false_alarms=0", "operating_point: false_alarms: got 0, expected more than 0 *"),
        ("operating_point.false_alarms=1", "operating_point: false_alarms: got 1, *less than 1 per frame"),
        ("operating_point.calibrate_on=[]", "operating_point: calibrate_on: got no set, expected sets of ordinary *"),
        ("operating_point.budget=1", "operating_point.budget: unknown key; known: *"),
        ("infer.scales=[1, 0]", "infer.scales.1: got 0, expected at least *"),
        ("infer.size=[0, 1024]", "infer.size.0: got 0, expected at least 1"),
        ("infer.size=[512]", "infer.size: got [512], expected [height, width]"),
        ("segments", "--set segments: expected key=value"),
        ("nowhere.x=1", "--set nowhere: no such section"),
        ("seed.x=1", "--set seed.x: seed is not a section"),
        ("train.epochs=[", "--set train.epochs: not YAML that can be read: "),
    ],
)
def test_errors_name_file_key_value_and_expectation(override: str, message: str) -> None:
    with pytest.raises(config.ConfigError) as raised:
        config.load(PARAMS, [override])
    first, *more = str(raised.value).splitlines()
    beginning, *rest = message.split("*")
    assert first.startswith(f"{PARAMS}: {beginning}")
    assert all(part in first for part in rest), first
    assert all(line.startswith(f"{PARAMS}: ") for line in more)


def test_numbers_are_written_as_in_yaml_1_2() -> None:
    params = config.load(PARAMS, ["train.learning_rate=1e-5", "train.weight_decay=0"])
    assert (params.train.learning_rate, params.train.weight_decay) == (1e-5, 0.0)
    assert config.load(PARAMS, ["train.crop=[320, 640]"]).train.crop == (320, 640)
    assert params.train.crop == 128


def test_a_role_has_one_dataset_or_several() -> None:
    for given, short in (
        ("coco", "coco"),
        ("[coco]", "coco"),
        ("{dataset: coco}", "coco"),
        ("[coco, cityscapes_train]", ["coco", "cityscapes_train"]),
        ("[{dataset: coco, weight: 2}, {dataset: lost_and_found, weight: 1, scale: 1.5}]", None),
    ):
        params = config.load(PARAMS, [f"roles.training={given}"])
        values = config.stage_values(params, "train", "dualgcn_mini")
        expected = yaml.safe_load(given) if short is None else short
        assert values["roles.training"] == expected
        assert values["roles.proxies"] == "coco"


def test_a_score_without_bounds_has_any_threshold() -> None:
    assert config.load(PARAMS, ["segments.score=energy", "segments.threshold=-7"])


def test_an_architecture_may_be_a_builder_of_somebody() -> None:
    assert config.load(PARAMS, ["network.dualgcn_mini.architecture=mine.networks:small"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "did not find expected"),
        ("- 1", r"the file: got \[1\], expected a mapping"),
        ("", "the file: got nothing, expected a mapping"),
        ("seed: 0\ntrain:\n  crop: 1\n  a: 2\n  crop: 3", "'crop' occurs twice, in lines 3 and 5"),
        ("a: &a [*a]", "contains itself"),
        ("a: &a {b: *a}", "contains itself"),
        ("{a: 1, a: 1}", "'a' occurs twice, in lines 1 and 1"),
        ("a: *a", "undefined alias"),
        (BOMB, "more than"),
        ("x: " + 3000 * "[" + 3000 * "]", "nested|depth|level"),
        ("a: 2020-13-45", "month"),
        ("a: !!python/object:os.system []", "could not determine a constructor"),
        ("? [1, 2]\n: 3", "unhashable|the file"),
        ("a: \0", "character"),
    ],
)  # fmt: skip
def test_what_is_no_params_file_is_refused_and_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(config.ConfigError, match=rf"bad\.yaml: .*({message})"):
        config.load(path)


def test_missing_and_undecodable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match=r"none\.yaml: no such file"):
        config.load(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes("ü: 1".encode("latin-1"))
    with pytest.raises(config.ConfigError, match=r"latin\.yaml: .*utf-8"):
        config.load(tmp_path / "latin.yaml")


def test_aliases_and_merge_keys_are_read() -> None:
    assert files.parse_yaml("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}") == {
        **{"a": {"x": 1}, "b": {"x": 1}},
        "c": {"x": 1, "y": 2},
    }


def test_yaml_is_read_as_by_pyyaml() -> None:
    for path in (PARAMS, ROOT / "dvc.yaml", *(ROOT / "configs").glob("*.yaml")):
        assert config.read_yaml(path) == yaml.safe_load(path.read_text())


def test_a_network_overrides_the_common_sections() -> None:
    params = config.load(PARAMS, ["network.dualgcn_mini.train={ood_weight: 0.25}"])
    assert params.train_of("dualgcn_mini").ood_weight == 0.25
    assert params.train_of("deeplabv3plus_mini") == params.train
    assert config.stage_values(params, "train", network="dualgcn_mini")["train.ood_weight"] == 0.25


def test_sections_are_sections_of_the_file() -> None:
    for sections in config.SECTIONS.values():
        assert {section.split(".")[0] for section in sections} <= set(config.Params.model_fields)


def test_params_are_frozen() -> None:
    params = config.load(PARAMS)
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        params.train.ood_weight = 0.1  # type: ignore[misc]
