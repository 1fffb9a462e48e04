"""configs/paper.yaml reads full-layout miniatures written below the roots that it names."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo_world import REPOSITORY, small_params, synthesize_to
from meta_ood import config
from meta_ood.data.context import Machine, no_log
from meta_ood.data.frames import read_frames
from meta_ood.data.labels import IGNORE, IN, NEUTRAL, OOD
from meta_ood.datasets import READERS
from meta_ood.datasets.checks.examine import examine
from meta_ood.demo.miniature import write_miniature
from meta_ood.pipeline import prepare

EXPECTED = {
    "cityscapes_train": {*range(19), IGNORE},
    "cityscapes_val": {*range(19), IGNORE},
    "coco": {0, OOD},
    "lost_and_found": {IN, OOD, IGNORE, NEUTRAL},
    "fishyscapes_lost_and_found": {IN, OOD, IGNORE},
    "fishyscapes_static": {IN, OOD, IGNORE},
}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """Give a folder whose data/raw holds a miniature of every dataset of the paper."""
    root = tmp_path_factory.mktemp("paper")
    raw = root / "data" / "raw"
    synthesize_to(raw, small_params())  # COCO and LostAndFound with all their oddities
    write_miniature(raw / "cityscapes", "cityscapes", "train", 12)
    write_miniature(raw / "cityscapes", "cityscapes", "val", 6)
    write_miniature(raw / "fishyscapes_lost_and_found", "fishyscapes_lost_and_found", "val")
    write_miniature(raw / "fishyscapes_static", "fishyscapes_static_v3", "val")
    return root


@pytest.mark.parametrize("dataset", list(EXPECTED))
def test_paper_reads_the_miniatures(here, dataset, monkeypatch):
    monkeypatch.chdir(here)
    overrides = ["datasets.coco.options.min_side=64"]  # the miniatures are small
    params = config.load(REPOSITORY / "configs" / "paper.yaml", overrides)
    assert set(params.datasets) == set(EXPECTED)
    own = params.datasets[dataset]
    report = examine(dataset, own.reader, Path(own.root), own.split, own.options)
    assert report.passed, report.findings
    prepared = Path("data/prepare") / dataset
    prepare.run(
        params, dataset=dataset, root=Path(own.root), prepared=prepared, log=no_log,
        machine=Machine(workers=1),
    )  # fmt: skip
    frames = read_frames(prepared, Path.cwd())
    values = {int(v) for f in frames for v in np.unique(np.asarray(Image.open(f.target)))}
    assert values <= EXPECTED[dataset]
    assert values & {0, IN}
    for frame in frames:
        with Image.open(frame.image) as image, Image.open(frame.target) as target:
            assert image.size == target.size
    if dataset == "fishyscapes_static":
        assert len(frames) == 30
        assert all("data/prepare" in str(frame.image) for frame in frames)


def test_paper_says_what_the_paper_says():
    params = config.load(REPOSITORY / "configs" / "paper.yaml")
    assert params.train_of("deeplabv3plus").ood_weight == 0.9
    assert params.train_of("deeplabv3plus").epochs == 4
    assert params.train_of("dualgcn").ood_weight == 0.25
    assert params.train_of("dualgcn").epochs == 11
    for network in params.networks:
        own = params.train_of(network)
        assert (own.learning_rate, own.crop, own.batch_size) == (1e-5, 480, 8)
        assert (own.proxy_ratio, own.loss_options["normalisation"]) == (0.1, "published")
    assert (params.segments.score, params.segments.threshold) == ("entropy", 0.7)
    assert params.datasets["coco"].options == {
        "min_side": 480, "background": "road", "exclude": "published",
    }  # fmt: skip
    assert {d.reader for d in params.datasets.values()} <= set(READERS)


def test_every_config_names_known_readers_and_options():
    from meta_ood.datasets import check_options

    for path in (REPOSITORY / "params.yaml", *sorted((REPOSITORY / "configs").glob("*.yaml"))):
        for own in config.load(path).datasets.values():
            check_options(own.reader, own.options)
