"""One name per stage everywhere; what a stage reads and writes is what dvc.yaml declares."""

import contextlib
import ctypes
import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from meta_ood import cli, config
from meta_ood.cli.stages import run_stage
from meta_ood.data.context import Machine
from meta_ood.datasets.lost_and_found import NAMES
from meta_ood.pipeline import code_digest
from meta_ood.pipeline import paths as layout
from meta_ood.pipeline.checks import check_options

ROOT = Path(__file__).parents[2]
PARAMS = config.load(ROOT / "params.yaml")
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
MLPROJECT = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]


def instances(networks: tuple[str, ...], evaluation_sets: tuple[str, ...]) -> list[tuple[str, dict[str, str]]]:
    """Return every stage with the keys of each of its instances."""
    found = []
    for stage, keys in layout.STAGES.items():
        sets = tuple(PARAMS.datasets) if stage == "prepare" else evaluation_sets
        values = {"network": networks, "variant": PARAMS.variants, "dataset": sets}
        cells: list[dict[str, str]] = [{}]
        for key in keys:
            cells = [{**cell, key: value} for cell in cells for value in values[key]]
        found += [(stage, cell) for cell in cells]
    return found


ALL = instances(PARAMS.networks, PARAMS.evaluation_sets)


def resolved(text: str, cell: dict[str, str]) -> str:
    """Fill in DVC's ${…} for one instance, independently of DVC."""
    values: dict[str, str] = {f"item.{key}": value for key, value in cell.items()}
    values["detector.meta_from"] = PARAMS.detector.meta_from
    if "dataset" in cell:
        values |= {"key": cell["dataset"]}
        values["item.root"] = PARAMS.datasets[cell["dataset"]].root
    for name, value in values.items():
        text = text.replace("${" + name + "}", value)
    assert "${" not in text, f"unresolved: {text}"
    return text


def declared(stage: str, cell: dict[str, str], *fields: str) -> list[str]:
    body = DVC[stage].get("do", DVC[stage])
    items = [item for field in fields for item in body.get(field, [])]
    return [resolved(i if isinstance(i, str) else next(iter(i)), cell) for i in items]


def test_a_stage_has_one_name() -> None:
    names = list(layout.STAGES)
    assert [name for name in DVC if name not in ("code", "roles")] == names
    assert list(cli.STAGES) == names
    assert list(config.SECTIONS) == names
    assert {"main", "sweep"} | set(names) == set(MLPROJECT)
    modules = {path.stem for path in (ROOT / "src/meta_ood/pipeline").glob("*.py")}
    assert modules - {"__init__", "paths", "code_digest", "lockfile", "checks"} == set(names)


def test_commands_name_their_stage_and_keys() -> None:
    for stage, keys in layout.STAGES.items():
        body = DVC[stage].get("do", DVC[stage])
        item = "key" if "do" in DVC[stage] else "item.{key}"
        # in quotes: a shell reads the command, after DVC has put the names in
        options = " ".join(f"--{key} '${{{item.format(key=key)}}}'" for key in keys)
        assert body["cmd"].split() == f"python -m meta_ood {stage} {options}".split()
        entry = MLPROJECT[stage]
        assert set(keys) <= set(entry["parameters"])
        for key in entry["parameters"]:
            # without quotes: MLflow quotes the values itself
            assert f"--{key} {{{key}}}" in entry["command"]


def test_dvc_declares_the_layout() -> None:
    for stage, cell in ALL:
        paths = layout.stage_paths(stage, PARAMS, **cell)
        deps = declared(stage, cell, "deps")
        assert f"data/code/{stage}.txt" in deps
        assert f"data/code/{stage}.txt" in DVC["code"]["outs"]
        data = [path for path in deps if not path.startswith("data/code/")]
        for role, sets in PARAMS.roles:  # a role's file stands for its datasets
            if (of_role := f"data/roles/{role}.txt") in data:
                assert of_role in DVC["roles"]["outs"]
                data.remove(of_role)
                data += [f"data/prepare/{own.dataset}" for own in sets]
        assert sorted(data) == sorted({path.as_posix() for path in paths.inputs.values()})
        outs = declared(stage, cell, "outs", "metrics", "plots")
        assert sorted(outs) == sorted(path.as_posix() for path in paths.outputs.values())


def test_dvc_declares_the_params() -> None:
    for stage, cell in ALL:
        found = {name.split(".")[0] for name in declared(stage, cell, "params")}
        expected = {section.split(".")[0] for section in config.SECTIONS[stage]}
        assert found <= expected
        assert expected - found <= {"roles"}  # in the files of the stage `roles`
    # every section is checked before any stage
    assert set(DVC["code"]["params"]) == set(config.Params.model_fields)


def test_a_network_s_training_does_not_touch_its_baseline() -> None:
    params = DVC["pretrain"]["params"]
    assert "train" not in params
    assert not [p for p in params if p.endswith(".train") or p == "network.${item.network}"]
    for stage, variant in (("pretrain", "baseline"), ("train", "ood_trained")):
        given = [path for path in DVC[stage]["deps"] if path.startswith("data/code/weights/")]
        assert given == [f"data/code/weights/${{item.network}}-{variant}.txt"]


def test_several_datasets_in_a_role_are_inputs_and_arguments() -> None:
    several = "roles.training=[cityscapes_train, {dataset: lost_and_found, scale: 2}]"
    params = config.load(ROOT / "params.yaml", [several])
    paths = layout.stage_paths("train", params, "dualgcn_mini")
    prepared = [Path("data/prepare/cityscapes_train"), Path("data/prepare/lost_and_found")]
    assert [path for name, path in paths.inputs.items() if name.startswith("training/")] == prepared
    assert paths.arguments["training"] == prepared
    assert paths.arguments["proxies"] == [Path("data/prepare/coco")]
    assert paths.arguments["baseline"] == paths.inputs["baseline"]
    setting = layout.setting_of(params, "train", "dualgcn_mini")
    assert {"datasets.lost_and_found.reader", "datasets.cityscapes_train.reader", "roles.training"} <= set(setting)


# --- actual reads and writes -----------------------------------------------------------------

SMALL = (
    "synthesize={height: 64, width: 128, cityscapes_train: 8, cityscapes_val: 3, coco: 14, "
    "lost_and_found: 6, fishyscapes: 4}",
    "datasets.coco.options={min_side: 64, background: ignore}",
    "networks=[deeplabv3plus_mini]",
    "evaluation_sets=[lost_and_found, cityscapes_val]",
    "meta.train_on=[lost_and_found]",
    "operating_point.false_alarms=0.9",
    "operating_point.confidence=0.5",
    "pretrain.epochs=1",
    "pretrain.crop=64",
    "train.epochs=1",
    "train.crop=64",
    "evaluate.bootstrap=5",
    "evaluate.pictures=1",
)


class Watch:
    """Record the files below a folder that anything opens, libraries in C and Rust too, by Linux' inotify."""

    OPENED = 0x20  # IN_OPEN

    def __init__(self, root: Path) -> None:
        self.root = root
        libc = ctypes.CDLL(None, use_errno=True)
        self.file = libc.inotify_init1(os.O_NONBLOCK)
        # whatever is made later is an output; links lead to the raw data, which are watched at their place
        folders = [root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())]
        self.folders = {libc.inotify_add_watch(self.file, bytes(path), self.OPENED): path for path in folders}
        self.before = {path for path in root.rglob("*") if path.is_file()}

    def opened(self) -> set[Path]:
        """Return the files that were there before and were opened, relative to the folder; end the watch."""
        found = set()
        with contextlib.suppress(BlockingIOError):
            while content := os.read(self.file, 1 << 16):
                while content:
                    number, _, _, length = struct.unpack_from("iIII", content)
                    name = content[16 : 16 + length].rstrip(b"\0").decode()
                    assert number != -1, "more events than the queue holds"
                    found.add(self.folders[number] / name)
                    content = content[16 + length :]
        os.close(self.file)
        return {path.relative_to(self.root) for path in found & self.before}


class Recorder:
    """Record the files opened below one folder, by an audit hook (hooks cannot be removed)."""

    def __init__(self, root: Path) -> None:
        self.root, self.is_on = root, False
        self.reads: set[Path] = set()
        self.writes: set[Path] = set()
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on or event not in ("open", "os.rename"):
            return
        if event == "os.rename":
            self.note(arguments[1], self.writes)
            return
        path, mode, flags = arguments
        writes = (mode and set(mode) & set("wax+")) or (flags or 0) & 3
        self.note(path, self.writes if writes else self.reads)

    def note(self, path: Any, found: set[Path]) -> None:
        if isinstance(path, str | bytes | Path):
            text = path.decode() if isinstance(path, bytes) else str(path)
            absolute = self.root / text
            if absolute.is_relative_to(self.root):
                found.add(absolute.relative_to(self.root))

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        self.reads.clear()
        self.writes.clear()
        self.is_on = True
        try:
            yield
        finally:
            self.is_on = False


@pytest.fixture
def keys_read(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Record what a stage reads of params.yaml: sections, and ``network.KEY`` and ``datasets.KEY`` of any entry."""
    read: set[str] = set()
    models = {config.Params: "", config.NetworkParams: "network.", config.DatasetParams: "datasets."}

    def note(entry: Any, name: str) -> Any:
        model = object.__getattribute__(entry, "__class__")
        if name in model.model_fields:
            # methods of config read for their caller; the paths are compared above
            frame: FrameType | None = sys._getframe(1)
            while frame and frame.f_globals["__name__"].startswith("meta_ood.config"):
                frame = frame.f_back
            here = frame.f_globals["__name__"] if frame else ""
            if here.startswith("meta_ood.") and not here.startswith(("meta_ood.cli", "meta_ood.pipeline.paths")):
                read.add(f"{models[model]}{name}")
        return object.__getattribute__(entry, name)

    for model in models:
        monkeypatch.setattr(model, "__getattribute__", note)
    return read


def test_stages_read_and_write_what_they_declare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys_read: set[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    params = config.load(ROOT / "params.yaml", SMALL)
    recorder = Recorder(tmp_path)
    for stage, cell in instances(("deeplabv3plus_mini",), ("lost_and_found", "cityscapes_val")):
        keys_read.clear()
        watch = Watch(tmp_path) if sys.platform == "linux" else None
        with recorder.recording():
            run_stage(
                stage, cell, params_file=ROOT / "params.yaml", overrides=SMALL, machine=Machine("cpu", 1), track=False
            )
        reads = recorder.reads | (watch.opened() if watch else set())
        # an entry's name does not matter: network.NAME.architecture is network.architecture
        given = [name.split(".") for name in declared(stage, cell, "params")]
        known = {".".join([section, *key]) for section, *rest in given for key in [rest[1:]]}
        if any(path.startswith("data/code/weights/") for path in declared(stage, cell, "deps")):
            known.add("network.weights")  # these files hold the names and hashes of given weights
        undeclared = {key for key in keys_read if not {key, key.split(".")[0]} & known}
        # of `network` and `datasets` the keys of the entries count; roles and meta_from are in the paths of deps;
        # tracking changes no result
        harmless = {"network", "datasets", "roles", "detector", "tracking"}
        assert undeclared <= harmless, f"{stage} reads params that it does not declare"
        paths = layout.stage_paths(stage, params, **cell)
        # frames.csv lists raw images with their md5: through it they are declared
        inputs = [*paths.inputs.values(), *([layout.DEMO] if _has_frames(paths) else [])]
        outputs = list(paths.outputs.values())
        state = [Path(".meta_ood")]
        if stage == "infer" and watch:
            assert paths.inputs["weights"] in reads, "the watch works: Rust opens this file"
        for path in reads:
            assert any(path.is_relative_to(p) for p in [*inputs, *outputs, *state]), (
                f"{stage} {cell} reads {path}, which it does not declare"
            )
        for path in recorder.writes:
            temporary = any(path.is_relative_to(p) or _is_partial(path, p) for p in outputs)
            assert temporary or path.is_relative_to(state[0]), (
                f"{stage} {cell} writes {path}, which it does not declare"
            )
        for name, path in paths.outputs.items():
            assert path.exists(), f"{stage} did not write its {name}"
        left = [p for end in ("*.tmp*", "*.partial") for p in Path("data").rglob(end)]
        assert not left, f"{stage} left temporary files: {left}"
        if (stage, cell.get("dataset")) == ("evaluate", "lost_and_found"):
            found = json.loads(paths.outputs["metrics"].read_text())
            by_label = found["detection"]["label_id"]
            assert set(by_label) <= set(NAMES.values())
            total = sum(group["components"] for group in by_label.values())
            assert total == found["components"] > 0


def _is_partial(path: Path, output: Path) -> bool:
    """Return whether `path` is, by its name, an unfinished `output` beside it."""
    return path.parent == output.parent and path.name.lstrip(".").startswith(output.name)


def _has_frames(paths: layout.StagePaths) -> bool:
    # of one dataset, or of all of them
    return any(any(path.glob(f"{below}frames.csv")) for path in paths.inputs.values() for below in ("", "*/"))


# --- the helper stage ------------------------------------------------------------------------


def code(tmp_path: Path, *weights: str) -> tuple[int, str]:
    """Run `meta-ood code` with these weights of dualgcn_mini."""
    text = (ROOT / "params.yaml").read_text()
    before, _, after = text.rpartition("    weights: {}")
    Path("params.yaml").write_text(f"{before}    weights: {{{', '.join(weights)}}}{after}")
    result = CliRunner().invoke(cli.main, ["code"])
    return result.exit_code, result.output


def test_given_weights_change_the_digest_of_their_stage_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(code_digest, "stage_digest", lambda stage: "")  # seconds, and not what is tested
    Path("data/weights").mkdir(parents=True)
    given = Path("data/weights/a.safetensors")
    given.write_bytes(b"1")

    def digests() -> dict[str, str]:
        return {path.stem: path.read_text() for path in Path("data/code/weights").iterdir()}

    assert code(tmp_path)[0] == 0
    empty = digests()
    assert set(empty) == {f"{n}-{v}" for n in PARAMS.network for v in PARAMS.variants}
    assert set(empty.values()) == {"none\n"}
    assert code(tmp_path, f"ood_trained: {given}")[0] == 0
    first = digests()
    assert {name for name in first if first[name] != empty[name]} == {"dualgcn_mini-ood_trained"}
    given.write_bytes(b"2")
    assert code(tmp_path, f"ood_trained: {given}", f"backbone: {given}")[0] == 0
    second = digests()
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {"dualgcn_mini-ood_trained", "dualgcn_mini-baseline"}
    given.unlink()
    assert code(tmp_path, f"ood_trained: {given}")[0] == 0
    assert digests()["dualgcn_mini-ood_trained"].startswith("missing")
    for outside in ("a.safetensors", "/a", "data/weights/../a"):
        status, output = code(tmp_path, f"baseline: {outside}")
        assert (status, "is not below data/weights" in output) == (2, True)


def test_members_of_an_ensemble_are_in_the_digests_of_what_runs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(code_digest, "stage_digest", lambda stage: "")
    Path("data/weights").mkdir(parents=True)
    text = (ROOT / "params.yaml").read_text()

    def digests(weights: str = "") -> dict[str, str]:
        chosen = f"  scores: [mutual_information]\n  repetition: {{weights: ['{weights}']}}\n" if weights else ""
        Path("params.yaml").write_text(text.replace("\ninfer:\n", f"\ninfer:\n{chosen}"))
        assert CliRunner().invoke(cli.main, ["code"]).exit_code == 0
        return {path.stem: path.read_text() for path in Path("data/code").rglob("*.txt")}

    # a file for each network and variant, of which one is not there
    name = "data/weights/{network}-{variant}.safetensors"
    members = [Path(name.format(network=n, variant=v)) for n in PARAMS.networks for v in PARAMS.variants]
    for member in members[1:]:
        member.write_bytes(b"1")
    without, first = digests(), digests(name)
    assert {stage for stage in first if first[stage] != without[stage]} == {"infer", "detector"}
    assert all(str(member) in first["infer"] for member in members)
    assert "missing" in first["infer"]
    members[-1].write_bytes(b"2")
    second = digests(name)
    assert {stage for stage in first if first[stage] != second[stage]} == {"infer", "detector"}


def test_a_module_of_ones_own_is_in_the_digests_of_its_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(code_digest, "stage_digest", lambda stage: "")
    own = Path("own_code_for_test.py")
    own.write_text("from meta_ood.scores import Score\nscore = Score(('first',), lambda maps: maps.first)\n")
    text = (ROOT / "params.yaml").read_text()
    text = text.replace("  score: entropy\n", "  score: own_code_for_test:score\n")
    Path("params.yaml").write_text(text.replace("architecture: dualgcn_mini", "architecture: own_nets.missing:net"))

    def digests() -> dict[str, str]:
        assert CliRunner().invoke(cli.main, ["code"]).exit_code == 0
        return {path.stem: path.read_text() for path in Path("data/code").rglob("*.txt")}

    first = digests()
    assert {name for name, lines in first.items() if "own_code_for_test" in lines} == {"segments", "evaluate"}
    assert first["infer"] == first["statistics"] == "missing  own_nets.missing\n"
    assert {name for name, lines in first.items() if "own_nets" in lines} == {
        "statistics",
        "infer",
        "dualgcn_mini-baseline",
        "dualgcn_mini-ood_trained",
    }
    own.write_text("# a comment\n" + own.read_text())
    assert digests() == first
    own.write_text(own.read_text() + "score = Score(('second',), lambda maps: maps.second)\n")
    second = digests()
    assert {name for name in first if first[name] != second[name]} == {"segments", "evaluate"}


def test_the_file_of_a_role_changes_with_its_own_datasets_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in PARAMS.datasets:
        target = Path("data/prepare", name, "targets/0.png")
        target.parent.mkdir(parents=True)
        target.write_bytes(b"1")

    def files(*roles: str) -> dict[str, str]:
        text = (ROOT / "params.yaml").read_text()
        for role in roles:
            text = text.replace("  training: cityscapes_train\n", f"  training: {role}\n")
        Path("params.yaml").write_text(text)
        assert CliRunner().invoke(cli.main, ["roles"]).exit_code == 0
        return {path.stem: path.read_text() for path in Path("data/roles").iterdir()}

    def changed(old: dict[str, str], new: dict[str, str]) -> set[str]:
        return {role for role in old if old[role] != new[role]}

    first = files()
    assert set(first) == {"training", "validation", "proxies"}
    Path("data/prepare/lost_and_found/targets/0.png").write_bytes(b"2")
    assert files() == first
    Path("data/prepare/cityscapes_train/targets/0.png").write_bytes(b"2")
    assert changed(first, second := files()) == {"training"}
    third = files("[cityscapes_train, lost_and_found]")
    assert changed(second, third) == {"training"}
    assert changed(third, files("[{dataset: cityscapes_train, weight: 1}, {dataset: lost_and_found, weight: 2}]"))
    Path("data/prepare/lost_and_found/targets/0.png").rename("data/prepare/lost_and_found/targets/1.png")
    assert changed(third, files("[cityscapes_train, lost_and_found]")) == {"training"}


def test_wrong_params_stop_the_pipeline_before_its_first_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("  lost_and_found:\n", "  x; touch f:\n", 1))
    result = CliRunner().invoke(cli.main, ["code"])
    assert (result.exit_code, "got 'x; touch f', expected a name" in result.output) == (2, True)
    assert not Path("data/code").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("datasets.coco.options={min_sid: 3}", "datasets.coco.options: coco reader: unknown option 'min_sid'; known:"),
        ("train.loss_options={margin: 1}", "network.*: train.loss_options: margin unknown to entropy_maximization"),
        ("network.dualgcn_mini.options={width: 2}", "network.dualgcn_mini.options: architecture dualgcn_mini: options"),
        ("meta.classifier_options={depth: 2}", "meta.classifier_options: logistic_regression: unknown option 'depth'"),
    ],
)
def test_options_are_checked_before_the_first_stage(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_options(config.load(ROOT / "params.yaml", [override]))
    for path in (ROOT / "params.yaml", *(ROOT / "configs").glob("*.yaml")):
        check_options(config.load(path))
