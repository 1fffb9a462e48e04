"""The detector and photos that the package carries, and `meta-ood detect --demo`."""

import re
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from meta_ood import Detector, cli
from meta_ood.data.files import file_hash, read_json
from meta_ood.demo import write
from meta_ood.detector import demo


def test_the_files_are_those_that_the_text_beside_them_names():
    text = (demo.DETECTOR / "README.md").read_text(encoding="utf-8")
    named = dict(re.findall(r"^\| (\S+) \| `([0-9a-f]{64})` \|$", text, re.MULTILINE))
    files = [path for path in demo.DETECTOR.rglob("*") if path.is_file() and path.name != "README.md"]
    assert named == {path.relative_to(demo.DETECTOR).as_posix(): file_hash(path) for path in files}
    assert sum(path.stat().st_size for path in files) < 3e6


def test_its_kept_segments_are_obstacles_of_a_street_that_trained_nothing(tmp_path):
    write.write_lost_and_found_scene(tmp_path, "3", 4, 1, 3, 128, 256)  # as docs/demo_detector.py draws it
    name = "3/3_000002_000010"
    photo = tmp_path / "leftImg8bit/test" / f"{name}_leftImg8bit.png"
    np.testing.assert_array_equal(Image.open(photo), Image.open(demo.PHOTOS / "cone.png"))
    obstacles = np.array(Image.open(tmp_path / "gtCoarse/test" / f"{name}_gtCoarse_labelTrainIds.png")) == 2
    found = Detector.load(demo.DETECTOR, "cpu")(photo)
    assert found.kept_mask.any()
    # a third of what is kept is obstacle, the rest mostly its shadow; of the frame it is a fiftieth
    assert obstacles[found.kept_mask].mean() > 0.33 > 10 * obstacles.mean()


def test_detect_demo_says_which_segments_it_keeps_and_why(tmp_path):
    result = CliRunner().invoke(cli.main, ["-q", "detect", "--demo", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    for photo in demo.PHOTOS.iterdir():
        segments = read_json(tmp_path / f"{photo.stem}.json")["segments"]
        kept = [segment for segment in segments if segment["kept"]]
        assert f"{photo.name}: {len(segments)} segments, {len(kept)} kept" in result.output
        for segment in kept:
            assert f"kept: {segment['size']} px" in result.output
            assert segment["reasons"][0]["description"] in result.output
    # photo beside overlay, a row each, every pixel 2 x 2
    picture = np.array(Image.open(tmp_path / demo.PICTURE))
    assert picture.shape == (3 * 2 * 128, 2 * 2 * 256, 3)
    np.testing.assert_array_equal(picture[:256:2, 512::2], Image.open(tmp_path / "beacon_overlay.png"))
    np.testing.assert_array_equal(picture[1:256:2, 1:512:2], Image.open(demo.PHOTOS / "beacon.png"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([], "--demo alone"),
        (["--demo", "photo.png"], "--demo alone"),
        (["photo.png"], "--detector FOLDER is missing"),
        (["--detector", "folder"], "IMAGES is missing"),
    ],
)
def test_detect_without_what_it_needs_says_what_to_give(given, says):
    result = CliRunner().invoke(cli.main, ["detect", *given])
    assert result.exit_code == 2
    assert says in result.output


def test_a_detector_with_a_linear_classifier_answers_without_scikit_learn_and_mlflow():
    code = (
        "import sys; from meta_ood import Detector; from meta_ood.detector import demo;"
        " Detector.load(demo.DETECTOR, 'cpu')(demo.PHOTOS / 'cone.png');"
        " sys.exit(', '.join({'sklearn', 'mlflow', 'dvc', 'lightning'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
