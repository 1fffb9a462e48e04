"""One name per stage everywhere; what a stage reads and writes is what dvc.yaml declares."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from meta_ood import cli, config
from meta_ood.cli.stages import run_stage
from meta_ood.data.context import Machine
from meta_ood.datasets.lost_and_found import NAMES
from meta_ood.pipeline import paths as layout

ROOT = Path(__file__).parents[2]
PARAMS = config.load(ROOT / "params.yaml")
DVC = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
MLPROJECT = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]


def cells(stage: str) -> list[dict[str, str]]:
    """Return the keys of every instance of a stage under the committed params."""
    values = {
        "network": PARAMS.networks,
        "variant": PARAMS.variants,
        "dataset": tuple(PARAMS.datasets) if stage == "prepare" else PARAMS.evaluation_sets,
    }
    found: list[dict[str, str]] = [{}]
    for key in layout.STAGES[stage]:
        found = [{**cell, key: value} for cell in found for value in values[key]]
    return found


INSTANCES = [(stage, cell) for stage in layout.STAGES for cell in cells(stage)]


def resolved(text: str, cell: dict[str, str]) -> str:
    """Fill in DVC's ${…} for one instance, independently of DVC."""
    values: dict[str, str] = {f"item.{key}": value for key, value in cell.items()}
    values |= {f"roles.{role}": getattr(PARAMS.roles, role) for role in vars(PARAMS.roles)}
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
    assert list(DVC) == ["code", *names]
    assert list(cli.STAGES) == names
    assert list(config.SECTIONS) == names
    assert set(names) <= set(MLPROJECT)
    assert {"main", "sweep"} | set(names) == set(MLPROJECT)
    modules = {p.stem for p in (ROOT / "src/meta_ood/pipeline").glob("*.py")} - {"__init__", "paths", "code_digest"}
    assert modules == set(names)


@pytest.mark.parametrize("stage", layout.STAGES)
def test_commands_name_their_stage_and_keys(stage: str) -> None:
    body = DVC[stage].get("do", DVC[stage])
    options = " ".join(f"--{key} ${{{'key' if 'do' in DVC[stage] else f'item.{key}'}}}" for key in layout.STAGES[stage])
    assert body["cmd"].split() == f"python -m meta_ood {stage} {options}".split()
    entry = MLPROJECT[stage]
    assert set(layout.STAGES[stage]) <= set(entry["parameters"])
    for key in entry["parameters"]:
        assert f"--{key} {{{key}}}" in entry["command"]


@pytest.mark.parametrize(("stage", "cell"), INSTANCES, ids=str)
def test_dvc_declares_the_layout(stage: str, cell: dict[str, str]) -> None:
    paths = layout.stage_paths(stage, PARAMS, **cell)
    deps = declared(stage, cell, "deps")
    data = [d for d in deps if not d.startswith("data/code/")]
    assert sorted(data) == sorted({p.as_posix() for p in paths.inputs.values()})
    outs = declared(stage, cell, "outs", "metrics", "plots")
    assert sorted(outs) == sorted(p.as_posix() for p in paths.outputs.values())


@pytest.mark.parametrize(("stage", "cell"), INSTANCES, ids=str)
def test_dvc_declares_the_params(stage: str, cell: dict[str, str]) -> None:
    found = {p.split(".")[0] for p in declared(stage, cell, "params")}
    expected = {section.split(".")[0] for section in config.SECTIONS[stage]}
    missing = expected - found - {"roles"}  # roles resolve to paths, which are declared
    assert found <= expected
    assert not missing


def test_a_network_s_training_does_not_touch_its_baseline() -> None:
    params = DVC["pretrain"]["params"]
    assert "train" not in params
    assert not [p for p in params if p.endswith(".train") or p == "network.${item.network}"]


@pytest.mark.parametrize("stage", layout.STAGES)
def test_a_stage_depends_on_the_digest_of_its_code(stage: str) -> None:
    deps = declared(stage, cells(stage)[0], "deps")
    assert f"data/code/{stage}.txt" in deps
    assert f"data/code/{stage}.txt" in DVC["code"]["outs"]


# --- actual reads and writes -----------------------------------------------------------------

SMALL = (
    "synthesize={height: 64, width: 128, cityscapes_train: 8, cityscapes_val: 3, coco: 14, "
    "lost_and_found: 6, fishyscapes: 4}",
    "datasets.coco.options={min_side: 64, background: ignore}",
    "networks=[deeplabv3plus_mini]",
    "evaluation_sets=[lost_and_found]",
    "pretrain.epochs=1",
    "pretrain.crop=64",
    "train.epochs=1",
    "train.crop=64",
    "evaluate.bootstrap=5",
    "evaluate.pictures=1",
)


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


def small_instances() -> list[tuple[str, dict[str, str]]]:
    sets = {"network": ["deeplabv3plus_mini"], "variant": ["baseline", "ood_trained"]}
    order = []
    for stage, keys in layout.STAGES.items():
        found: list[dict[str, str]] = [{}]
        for key in keys:
            values = sets.get(key) or (list(PARAMS.datasets) if stage == "prepare" else ["lost_and_found"])
            found = [{**cell, key: value} for cell in found for value in values]
        order += [(stage, cell) for cell in found]
    return order


def test_stages_read_and_write_what_they_declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = config.load(ROOT / "params.yaml", SMALL)
    recorder = Recorder(tmp_path)
    for stage, cell in small_instances():
        with recorder.recording():
            run_stage(
                stage, cell, params_file=ROOT / "params.yaml", overrides=SMALL, machine=Machine("cpu", 1), track=False
            )
        paths = layout.stage_paths(stage, params, **cell)
        # frames.csv lists raw images with their md5: through it they are declared
        inputs = [*paths.inputs.values(), *([layout.DEMO] if _has_frames(paths) else [])]
        outputs = list(paths.outputs.values())
        state = [Path(".meta_ood")]
        for path in recorder.reads:
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
        if stage == "evaluate":
            figures = json.loads(paths.outputs["metrics"].read_text())
            by_label = figures["detection"]["label_id"]
            assert set(by_label) <= set(NAMES.values())
            total = sum(group["components"] for group in by_label.values())
            assert total == figures["components"] > 0


def _is_partial(path: Path, output: Path) -> bool:
    """Return whether `path` is, by its name, an unfinished `output` beside it."""
    return path.parent == output.parent and path.name.lstrip(".").startswith(output.name)


def _has_frames(paths: layout.StagePaths) -> bool:
    return any((path / "frames.csv").is_file() for path in paths.inputs.values())
