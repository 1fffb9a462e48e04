"""The slider's table and the gallery's frames: against counts of the segment table itself."""

import base64
import io
import json
import re
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from gallery_folder import DATASET, NETWORK, write_gallery
from meta_ood.evaluation.masks import write_masks
from meta_ood.metrics import segment
from meta_ood.report import frames, pictures
from meta_ood.report.page import report_page
from meta_ood.report.results import read_results

VARIANTS = ("baseline", "ood_trained")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("gallery")
    tables = write_gallery(root, frames=70)
    results = read_results(root / "evaluation", [NETWORK], VARIANTS, [DATASET])
    cells = frames.read_cells(results, root / "segments", root / "meta")
    return root, tables, results, cells, frames.gallery(cells, root / "prepared", 0)


def recounted(values, position):
    """Count as the script does."""
    segments, found = np.array(values["segments"]), np.array(values["found"])
    kept = segments // 2 <= position
    return (
        int((kept & (segments % 2 == 1)).sum()),
        int((found > position).sum()),
        int((~kept & (segments % 2 == 0)).sum()),
    )


def test_the_slider_counts_what_an_evaluation_at_its_point_counts(made):
    _, tables, _, _, shown = made
    for values in shown.values["cells"]:
        table, probability = tables[values["variant"]]
        assert sum(values["counts"]) == len(table.image)
        for position, point in enumerate(shown.values["points"]):
            errors = segment.segment_errors(table, probability > point)
            expected = (
                errors.false_positives_after_meta,
                errors.false_negatives_after_meta,
                errors.true_segments_removed,
            )
            assert recounted(values, position) == expected


def test_the_own_point_gives_the_evaluation_s_decisions(made):
    _, _, results, cells, shown = made
    for cell, values in zip(cells, shown.values["cells"], strict=True):
        assert values["isExact"]
        one = results.evaluations[cell.evaluation.key]
        keys = [f"segment_false_{kind}_after_meta" for kind in ("positives", "negatives")]
        assert recounted(values, values["own"])[:2] == tuple(one.value(key) for key in keys)


@pytest.mark.parametrize(
    ("probability", "removed", "point", "own"),
    [
        ([0.2, 0.8], [False, True], 0.5, 0.5),
        ([0.2, 0.8], [False, True], 0.9, 0.2),  # the point was rounded to the wrong side
        ([0.2, 0.8], [True, False], 0.5, None),
        ([0.5, 0.5], [True, False], 0.5, None),
        ([0.2, 0.8], [True, True], 0.5, -1.0),
        ([], [], 0.5, 0.5),
    ],
)
def test_own_point(made, probability, removed, point, own):
    values = {"probability": np.array(probability), "removed": np.array(removed, bool), "point": point}
    assert made[3][0]._replace(**values).own_point == own


def test_frames_are_few_and_the_worst_are_among_them(made):
    _, tables, _, cells, shown = made
    (only,) = shown.values["sets"]
    indices = [frame[0] for frame in only["frames"]]
    assert len(indices) == frames.MOST_FRAMES
    assert indices == sorted(set(indices))
    assert set(only["random"]) <= set(indices)
    for cell in cells:
        table, _ = tables[cell.evaluation.variant]
        missed = segment.missed(table, ~cell.removed)
        if missed.any():
            largest = table.component_size[missed].max()
            worst = table.component_image[missed & (table.component_size == largest)]
            assert set(worst.tolist()) & set(indices)
        alarms = np.bincount(table.image[table.is_false & ~cell.removed], minlength=70)
        assert alarms[indices].max() == alarms.max()


def test_details_are_those_of_the_table(made):
    _, tables, _, cells, shown = made
    for cell, values in zip(cells, shown.values["cells"], strict=True):
        table, probability = tables[values["variant"]]
        for (index, name, rows, columns), details in zip(
            shown.values["sets"][0]["frames"], values["details"], strict=True
        ):
            assert name == table.image_ids[index]
            of_frame = np.flatnonzero(table.image == index)
            assert details["size"] == table.segment_size[of_frame].tolist()
            np.testing.assert_allclose(details["probability"], probability[of_frame], rtol=1e-3)
            # the runs paint as many pixels as the segments have: these frames are not thinned
            runs = np.array(details["runs"], np.int64).reshape(-1, 3)
            painted = np.bincount(runs[:, 2], runs[:, 1], len(of_frame) + 1)
            assert painted[1:].tolist() == details["size"]
            assert runs[:, :2].sum() <= rows * columns
            for row, told in zip(of_frame, details["features"], strict=True):
                odds = cell.classifier.weights * cell.classifier.scaling(table.features[[row]])[0]
                assert [k for k, _, _ in told] == np.argsort(-np.abs(odds), kind="stable")[: len(told)].tolist()
                assert all(abs(value - odds[k]) < 0.01 for k, value, _ in told)


def test_thumbnails_keep_to_their_bytes(made, tmp_path):
    assert {len(thumbnails) for thumbnails in made[4].thumbnails} == {frames.MOST_FRAMES}
    with Image.open(io.BytesIO(base64.b64decode(made[4].thumbnails[0][0]))) as image:
        assert (image.format, image.size) == ("WEBP", (64, 32))
    rng = np.random.default_rng(0)
    busy = np.kron(rng.integers(0, 255, (64, 128, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    Image.fromarray(busy).save(tmp_path / "busy.png")
    thumbnail = pictures.thumbnail(tmp_path / "busy.png", (256, 512))
    assert len(base64.b64decode(thumbnail)) <= pictures.MOST_BYTES


def test_the_page_carries_the_table(made):
    _, _, results, cells, shown = made
    page = report_page("t", results, {}, cells=cells, gallery=shown)
    packed = re.search(r'id="page-data">([^<]*)<', page)[1]
    assert json.loads(zlib.decompress(base64.b64decode(packed)))["gallery"] == json.loads(json.dumps(shown.values))
    thumbnails = re.search(r'id="thumbnails">([^<]*)<', page)[1]
    assert json.loads(thumbnails) == shown.thumbnails


def test_masks_of_other_frames_are_refused(made, tmp_path):
    root, _, results, _, _ = made
    one = results.evaluations[NETWORK, "baseline", DATASET]
    write_masks(tmp_path / "masks.h5", {"other": np.zeros((0, 3), np.int32)})
    changed = replace(results, evaluations={one.key: replace(one, masks=tmp_path / "masks.h5")})
    with pytest.raises(ValueError, match="evaluate again"):
        frames.read_cells(changed, root / "segments", root / "meta")
