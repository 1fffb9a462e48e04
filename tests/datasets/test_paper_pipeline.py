"""configs/paper.yaml from raw datasets and released weights to the table beside published figures.

Everything is as in the committed file but what OVERRIDES says: the miniatures are small, and so are the networks'
widths. Folders, names, weights files, stages, epochs and λ are the real ones.
"""

import csv
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from demo_world import REPOSITORY, small_params, synthesize_to
from meta_ood import cli, config, models
from meta_ood.cli.stages import run_stage
from meta_ood.data.context import Machine
from meta_ood.demo.miniature import write_miniature
from meta_ood.models import checkpoint
from meta_ood.pipeline import paths as layout

NARROW = {
    "deeplabv3plus": "{stem_width: 8, blocks: [1, 1, 2, 1, 1, 1], aspp_width: 8, fine_width: 8, "
    "widths: [[8, 8], [8, 8], [8, 8], [8, 16], [8, 8, 16], [8, 8, 16]]}",
    "dualgcn": "{blocks: [1, 1, 1, 1], stem_width: 8, planes: [8, 8, 8, 8], head_planes: 8}",
}  # fmt: skip
# Not narrower: oneDNN as in torch 2.15 writes beyond its memory in the backward pass of
# channels-last convolutions of fewer than eight channels on AVX2.
OVERRIDES = (
    *(f"network.{name}.options={options}" for name, options in NARROW.items()),
    "datasets.coco.options.min_side=64",
    "train.crop=64",
    # all datasets are prepared; the cells of Fishyscapes L&F would be those of Static again
    "evaluation_sets=[lost_and_found,fishyscapes_static,cityscapes_val]",
    "evaluate.scores=[entropy,max_logit]",
    "evaluate.bootstrap=10",
    "evaluate.pictures=1",
)
LINKS = ("cityscapes", "coco", "lost_and_found", "fishyscapes_lost_and_found", "fishyscapes_static")


def call(*arguments):
    result = CliRunner().invoke(cli.main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def write_datasets(root):
    """Write miniatures of all datasets of the paper, as they are on somebody's disk."""
    synthesize_to(root, small_params())  # COCO and LostAndFound with all their oddities
    for split, count in (("train", 12), ("val", 6)):
        write_miniature(root / "cityscapes", "cityscapes", split, count)
    write_miniature(root / "fishyscapes_lost_and_found", "fishyscapes_lost_and_found", "val", 6)
    write_miniature(root / "fishyscapes_static", "fishyscapes_static_v3", "val", 6)


def write_released(path, own):
    """Write a checkpoint as the networks were released: below a key, names with `module.`."""
    torch.manual_seed(3)
    network = models.build(own.architecture, 19, **own.options)
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "optimizer": {"lr": 0.01}, "epoch": 174}, path)
    return network


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Go the whole way once: link, import, all stages; give the folder and the networks."""
    here = tmp_path_factory.mktemp("paper")
    store = tmp_path_factory.mktemp("store")
    write_datasets(store)
    released = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("META_OOD_TRACKING", "off")
        committed = (REPOSITORY / "configs" / "paper.yaml").read_text()
        Path("params.yaml").write_text(committed)
        for name in LINKS:
            call("data", "link", name, store / name, "--workers", 1)
        assert Path("params.yaml").read_text() == committed  # the roots are already those
        params = config.load(Path("params.yaml"), OVERRIDES)
        for name in params.networks:
            own = params.network_params(name)
            released[name] = write_released(store / f"{name}.pth", own)
            changes = [word for change in OVERRIDES for word in ("--set", change)]
            call(
                *("weights", "import", store / f"{name}.pth", "--network", name),
                *("--variant", "baseline", "--origin", "a test", *changes),
            )
        for stage, keys in layout.STAGES.items():
            if stage != "synthesize":
                for cell in cells(params, stage, keys):
                    run_stage(
                        stage, cell, params_file=Path("params.yaml"), overrides=OVERRIDES,
                        machine=Machine("cpu", 1), track=False,
                    )  # fmt: skip
    return here, params, released


def cells(params, stage, keys):
    values = {
        "network": params.networks,
        "variant": params.variants,
        "dataset": tuple(params.datasets) if stage == "prepare" else params.evaluation_sets,
    }
    found = [{}]
    for key in keys:
        found = [{**cell, key: value} for cell in found for value in values[key]]
    return found


@pytest.mark.parametrize("network", NARROW)
def test_the_baseline_is_what_was_imported_and_training_starts_from_it(work, network):
    here, _, released = work
    folder = here / "data" / "networks" / network
    baseline, _ = checkpoint.load(folder / "baseline.safetensors")
    trained, metadata = checkpoint.load(folder / "ood_trained.safetensors")
    expected = released[network].state_dict()
    for name, value in baseline.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert any(not torch.equal(value, expected[name]) for name, value in trained.state_dict().items())
    assert metadata["variant"] == "ood_trained"


def test_every_cell_has_its_figures(work):
    here, params, _ = work
    with (here / "data" / "report" / "results.csv").open() as file:
        rows = {(r["network"], r["variant"], r["dataset"]): r for r in csv.DictReader(file)}
    assert len(rows) == 2 * 2 * 3
    for (_, _, dataset), row in rows.items():
        known = {"cityscapes_val": ("miou",)}.get(dataset, ("auroc", "fpr95", "auprc"))
        assert all(0 <= float(row[name]) <= 1 for name in known), row
    assert set(params.evaluation_sets) == {dataset for _, _, dataset in rows}


def test_published_figures_stand_beside_ours(work):
    here, _, _ = work
    report = here / "data" / "report"
    lines = (report / "results.md").read_text().splitlines()
    rows = [line.split(" | ") for line in lines if line.startswith(("| lost", "| fishy", "| city"))]
    beside = {tuple(row) for row in rows if len(row) == 11}
    key = ("| lost_and_found", "deeplabv3plus", "ood_trained", "entropy")
    assert (*key, "[A]", "published", "?", "9.58", "76.45", "") in {row[:10] for row in beside}
    (ours,) = [row for row in beside if row[:5] == (*key, "here")]
    assert ours[5] == "published"
    assert all(0 <= float(figure) <= 100 for figure in ours[6:9])
    (unknown,) = [
        row for row in beside
        if row[:4] == ("| fishyscapes_static", "dualgcn", "ood_trained", "entropy")
        and row[4] != "here"
    ]  # fmt: skip
    assert unknown[6:9] == ("?", "?", "?")
    text = (report / "index.html").read_text()
    for words in ("Published results", "90.687", "12.14", "not the published network"):
        assert words in text
    assert "lost_and_found has 11 frames here, 1203 where published" in text
