"""Pictures against pixel loops, files against what reads them back."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib import colormaps
from PIL import Image

from meta_ood.data import overlays
from meta_ood.data.labels import CITYSCAPES, IGNORE, IN, NEUTRAL, OOD


def test_label_map_when_every_label_occurs():
    labels = np.array([[*range(19), NEUTRAL, IN, OOD, IGNORE]], np.uint8)
    picture = overlays.label_map(labels)
    assert [tuple(p) for p in picture[0, :19].tolist()] == list(CITYSCAPES.palette)
    assert len({tuple(p) for p in picture[0].tolist()}) == 23
    assert picture.dtype == np.uint8


def test_label_map_when_colours_of_ood_are_far_from_all_others():
    others = [*CITYSCAPES.palette, *(overlays.SPECIAL_COLOURS[v] for v in (NEUTRAL, IN, IGNORE))]
    orange = np.array(overlays.SPECIAL_COLOURS[OOD], float)
    assert min(np.linalg.norm(orange - np.array(colour)) for colour in others) > 70


def test_label_map_when_labels_are_of_another_label_space():
    colours = overlays.label_map(np.arange(256, dtype=np.uint8)[None])[0]
    neighbours = np.abs(np.diff(colours.astype(int), axis=0)).sum(axis=1)
    assert neighbours[19:251].min() > 60


def test_score_map_against_matplotlib():
    score = np.linspace(-3, 7, 60, dtype=np.float32).reshape(6, 10)
    ours = overlays.score_map(score, -2, 5).astype(int)
    theirs = colormaps["inferno"](np.clip((score + 2) / 7, 0, 1), bytes=True)[..., :3].astype(int)
    assert np.abs(ours - theirs).max() <= 4  # one step of 256


def test_score_map_is_brighter_for_higher_scores():
    picture = overlays.score_map(np.linspace(0, 1, 50, dtype=np.float32)[None])
    luminance = picture[0] @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(luminance) > 0).all()


def test_score_map_when_score_is_no_number_or_infinite():
    score = np.array([[np.nan, np.inf, -np.inf]], np.float32)
    ends = overlays.score_map(np.array([[1, 0]], np.float32))
    assert overlays.score_map(score)[0].tolist() == [[128] * 3, *ends[0].tolist()]


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1), (0, np.inf), (np.nan, 1)])
def test_score_map_when_range_is_wrong(low, high):
    with pytest.raises(ValueError, match="low < high"):
        overlays.score_map(np.zeros((1, 1), np.float32), low, high)


def outline_by_loop(segments):
    """Pixels of segments with one of four neighbours of another value."""
    rows, columns = segments.shape
    edge = np.zeros(segments.shape, bool)
    for r in range(rows):
        for c in range(columns):
            for dr, dc in ((-1, 0), (1, 0), (0, -1), (0, 1)):
                inside = 0 <= r + dr < rows and 0 <= c + dc < columns
                if segments[r, c] and inside and segments[r + dr, c + dc] != segments[r, c]:
                    edge[r, c] = True
    return edge


@given(hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3)))
def test_segments_map_against_pixel_loop(labels):
    removed = np.array([False, True, False])
    picture = overlays.segments_map(None, labels, removed)
    segments = labels
    edge = outline_by_loop(segments)
    for colour, numbers in ((overlays.KEPT, (1, 3)), (overlays.REJECTED, (2,))):
        expected = edge & np.isin(segments, numbers)
        assert (picture[expected] == colour).all()
    assert (picture[segments == 0] == 40).all()
    assert not (picture[segments != 0] == 40).all(axis=-1).any()


def test_segments_map_tells_kept_from_rejected_without_colour():
    labels = np.zeros((20, 40), np.int32)
    labels[2:18, 2:18], labels[2:18, 22:38] = 1, 2
    grey = overlays.segments_map(None, labels, np.array([False, True])) @ (0.3, 0.6, 0.1)
    assert grey[4:16, 4:16].std() == 0
    assert grey[4:16, 24:36].std() > 10  # hatched


def test_segments_map_outlines_true_components():
    target = np.full((6, 6), IN, np.uint8)
    target[2:4, 2:4] = OOD
    picture = overlays.segments_map(
        np.full((6, 6, 3), 90, np.uint8), np.zeros((6, 6), np.int32), np.zeros(0, bool), target
    )
    white = (picture == overlays.TRUTH).all(axis=-1)
    ring = outline_by_loop((target != OOD).astype(int))
    assert white.tolist() == ring.tolist()
    assert not white[target == OOD].any()


def test_segments_map_when_a_segment_is_unknown():
    with pytest.raises(ValueError, match="segment 4 of 2"):
        overlays.segments_map(None, np.array([[4]], np.int32), np.zeros(2, bool))


def test_segments_map_when_shapes_differ():
    with pytest.raises(ValueError, match=r"image .* differ in shape"):
        overlays.segments_map(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3), np.int32), np.zeros(0, bool))


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_encode_png_round_trip(shape):
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    content = overlays.encode_png(picture)
    assert overlays.encode_png(picture) == content
    with Image.open(io.BytesIO(content)) as image:
        assert (np.asarray(image) == picture).all()


def test_encode_png_with_palette_gives_indices_and_colours():
    classes = np.arange(19, dtype=np.uint8)[None]
    with Image.open(io.BytesIO(overlays.encode_png(classes, palette=True))) as image:
        assert (np.asarray(image) == classes).all()
        assert (np.asarray(image.convert("RGB")) == overlays.label_map(classes)).all()
