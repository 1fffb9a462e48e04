import json
import shutil

import pytest
from click.testing import CliRunner

from demo_world import REPOSITORY, small_params, synthesize_to
from meta_ood import cli, config


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    synthesize_to(root / "data" / "raw" / "demo", small_params())
    return root


@pytest.fixture
def here(raw, tmp_path, monkeypatch):
    """Give a repository of its own whose demo world is that of `raw`."""
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "demo").symlink_to(raw / "data" / "raw" / "demo")
    text = (REPOSITORY / "params.yaml").read_text().replace("min_side: 128", "min_side: 64")
    (tmp_path / "params.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("META_OOD_TRACKING", "off")
    return tmp_path


def call(*arguments):
    return CliRunner().invoke(cli.main, ["data", *arguments])


def test_check_passes_the_demo_world(here):
    result = call("check", "--full", "--workers", "1")
    assert result.exit_code == 0, result.output
    assert result.output.count("]  passed") == 5
    assert "FAILED" not in result.output


def test_check_of_a_folder_that_is_no_entry(here):
    result = call("check", "data/raw/demo/cityscapes")
    assert result.exit_code == 0, result.output
    assert "cityscapes train" in result.output
    assert "cityscapes val" in result.output
    wrong = call("check", "data/raw/demo")
    assert wrong.exit_code == 2
    assert "looks like no dataset that is known; try data/raw/demo/cityscapes" in wrong.output


def test_check_fails_with_exit_code_1_and_json(here):
    damaged = here / "damaged"
    shutil.copytree(here / "data" / "raw" / "demo" / "lost_and_found", damaged)
    gone = next(damaged.rglob("*_leftImg8bit.png"))
    gone.write_bytes(b"")
    result = call("check", str(damaged), "--full", "--json")
    assert result.exit_code == 1
    (report,) = json.loads(result.stdout)
    assert report["passed"] is False
    assert report["findings"][0]["code"] == "image_empty"
    assert report["findings"][0]["files"] == [str(gone)]
    text = call("check", str(damaged), "--full").output
    assert "FAILED" in text
    assert "-> copy them again" in text


def test_link_enters_the_root_checks_it_and_leaves_the_demo_alone(here):
    elsewhere = here / "elsewhere"
    shutil.copytree(here / "data" / "raw" / "demo" / "cityscapes", elsewhere)
    result = call("link", "cityscapes", str(elsewhere))
    assert result.exit_code == 0, result.output
    assert (here / "data" / "raw" / "cityscapes").resolve() == elsewhere.resolve()
    params = config.load(here / "params.yaml")
    assert params.datasets["cityscapes_train"].root == "data/raw/cityscapes"
    assert params.datasets["cityscapes_val"].root == "data/raw/cityscapes"
    assert params.datasets["coco"].root == "data/raw/demo/coco"
    assert (here / "data" / "raw" / "demo" / "cityscapes").is_dir()


def test_link_of_a_dataset_that_params_do_not_know_makes_entries(here):
    result = call("synthesize", "road_obstacle21", "tracks", "--count", "3")
    assert result.exit_code == 0, result.output
    result = call("link", "road_obstacle21", "tracks")
    assert result.exit_code == 0, result.output
    params = config.load(here / "params.yaml")
    assert params.datasets["road_obstacle21_val"].split == "val"
    assert params.datasets["road_obstacle21_val"].root == "data/raw/road_obstacle21"


def test_link_asks_for_the_images_of_labels_alone(here):
    call("synthesize", "fishyscapes_lost_and_found", "fs", "--count", "3")
    (here / "laf").mkdir()
    (here / "fs" / "leftImg8bit").rename(here / "laf" / "leftImg8bit")
    refused = call("link", "fishyscapes_lost_and_found", "fs")
    assert refused.exit_code == 2
    assert "give the root of LostAndFound as --images" in refused.output
    result = call("link", "fishyscapes_lost_and_found", "fs", "--images", "laf")
    assert result.exit_code == 0, result.output


def test_link_of_an_unknown_name_lists_the_known_ones(here):
    result = call("link", "kitti", ".")
    assert result.exit_code == 2
    assert "unknown dataset 'kitti'; known: cityscapes, cityscapes_train" in result.output


def test_train_ids_are_generated_once_and_are_those_of_the_reader(here):
    shutil.copytree(here / "data" / "raw" / "demo" / "cityscapes", here / "own")
    assert "16 files written" in call("train-ids", "own").output
    assert "0 files written" in call("train-ids", "own").output
    from meta_ood.datasets import read

    for first, second in zip(
        read("cityscapes", here / "own", "val"),
        read("cityscapes", here / "own", "val", {"labels": "train_ids"}),
        strict=True,
    ):
        assert (first.target() == second.target()).all()


def test_proxies_that_the_options_leave_out_altogether_are_an_error(here):
    options = "datasets.coco.options={min_side: 9999, background: ignore}"
    result = CliRunner().invoke(cli.main, ["prepare", "--dataset", "coco", "--set", options])
    assert result.exit_code == 2
    assert "datasets.coco: no frame is left of split 'train2017' below data/raw/demo/coco" in result.output
    assert "'min_side': 9999" in result.output
    assert not (here / "data/prepare/coco/frames.csv").exists()


def test_audit_of_the_proxies(here):
    result = call("audit-proxies")
    assert result.exit_code == 0, result.output
    assert "of 31 images are proxies" in result.output
    assert "dog" in result.output
    assert (here / "outputs" / "audit" / "coco" / "categories.png").is_file()
    refused = call("audit-proxies", "lost_and_found")
    assert refused.exit_code == 2
    assert "an audit needs coco" in refused.output
