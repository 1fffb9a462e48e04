import shutil
import subprocess

import pytest
import yaml

from demo_world import REPOSITORY
from meta_ood.datasets import linking

PARAMS = (REPOSITORY / "params.yaml").read_text()


def test_link_copies_nothing_and_may_be_repeated(tmp_path):
    source = tmp_path / "somewhere" / "cityscapes"
    (source / "leftImg8bit").mkdir(parents=True)
    for _ in range(2):
        link = linking.link("streets/cityscapes", source, tmp_path / "raw")
    assert link == tmp_path / "raw" / "streets" / "cityscapes"
    assert link.is_symlink()
    assert link.resolve() == source.resolve()
    other = tmp_path / "other"
    other.mkdir()
    assert linking.link("streets/cityscapes", other, tmp_path / "raw").resolve() == other.resolve()
    assert (source / "leftImg8bit").is_dir()


def test_a_link_given_as_the_root_stays(tmp_path):
    (tmp_path / "source").mkdir()
    link = linking.link("coco", tmp_path / "source", tmp_path / "raw")
    assert linking.link("coco", link, tmp_path / "raw").resolve() == tmp_path / "source"


def test_link_never_replaces_what_is_not_a_link(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (tmp_path / "raw" / "coco").mkdir(parents=True)
    with pytest.raises(ValueError, match="coco is in the way"):
        linking.link("coco", source, tmp_path / "raw")
    with pytest.raises(FileNotFoundError, match="nowhere is no folder"):
        linking.link("coco", tmp_path / "nowhere", tmp_path / "raw")


def test_labels_and_images_of_two_places_become_one_root(tmp_path):
    labels, images = tmp_path / "fishyscapes", tmp_path / "laf"
    (labels / "fishyscapes_lostandfound").mkdir(parents=True)
    (images / "leftImg8bit" / "test").mkdir(parents=True)
    link = linking.link("fishyscapes_lost_and_found", labels, tmp_path / "raw", images)
    assert sorted(p.name for p in link.iterdir()) == ["fishyscapes_lostandfound", "leftImg8bit"]
    assert (link / "leftImg8bit" / "test").is_dir()
    with pytest.raises(FileNotFoundError, match=r"leftImg8bit is no folder"):
        linking.link("x", labels, tmp_path / "raw", labels)


def test_a_known_entry_gets_another_root_and_nothing_else_changes():
    text = linking.enter(PARAMS, "coco", "coco", "data/raw/coco", "train2017", {})
    before, after = yaml.safe_load(PARAMS), yaml.safe_load(text)
    assert after["datasets"]["coco"]["root"] == "data/raw/coco"
    before["datasets"]["coco"]["root"] = "data/raw/coco"
    assert after == before
    assert text == PARAMS.replace("root: data/raw/demo/coco\n", "root: data/raw/coco\n")


def test_a_new_entry_is_added_to_the_datasets():
    text = linking.enter(PARAMS, "new", "lost_and_found", "data/raw/x", "test", {"reading": "smiyc"})
    before, after = yaml.safe_load(PARAMS), yaml.safe_load(text)
    assert after["datasets"].pop("new") == {
        "reader": "lost_and_found",
        "root": "data/raw/x",
        "split": "test",
        "options": {"reading": "smiyc"},
    }
    assert after == before


def test_a_file_without_datasets_is_refused():
    with pytest.raises(ValueError, match="no section datasets"):
        linking.enter("seed: 0\n", "a", "b", "c", "d", {})


def test_git_sees_links_and_nothing_else_of_the_raw_data(tmp_path):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    raw = tmp_path / "data/raw"
    (raw / "demo").mkdir(parents=True)
    (raw / "demo/a.png").touch()
    for name in (".gitignore", "data/raw/.gitignore"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    (tmp_path / "elsewhere/leftImg8bit").mkdir(parents=True)
    (tmp_path / "elsewhere/b.png").touch()
    for images in (None, tmp_path / "elsewhere"):
        for _ in range(2):
            linking.show_to_git(linking.link(f"set_{images is None}", tmp_path / "elsewhere", raw, images), raw)
    command = ["git", "-C", tmp_path, "ls-files", "--others", "--exclude-standard", "data"]
    seen = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    links = ["set_False/b.png", "set_False/leftImg8bit", "set_True"]
    assert seen == [f"data/raw/{name}" for name in (".gitignore", *links)]
