"""Objects on the road: geometry, labels and the edge, against what the pictures show."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_dilation

from meta_ood.data.frames import Frame
from meta_ood.data.labels import CITYSCAPES, IGNORE, IN, OOD
from meta_ood.inference.batches import Sample
from meta_ood.training import pasting
from meta_ood.training.cutouts import CutOut, cut_known, cut_proxy
from meta_ood.training.loader import SegmentationDataset
from meta_ood.training.pasting import OnRoad, horizon_of, paste_on_road
from meta_ood.training.transforms import Augmentation

ROAD, SIDEWALK, BUILDING, SIGN, PERSON, RIDER, CAR, BICYCLE = (
    CITYSCAPES.names.index(name)
    for name in ("road", "sidewalk", "building", "traffic sign", "person", "rider", "car", "bicycle")
)


def street(height: int = 160, width: int = 320) -> tuple[np.ndarray, np.ndarray]:
    """Return a grey picture: buildings above row 64, then road, with sidewalks on both sides."""
    target = np.full((height, width), BUILDING, np.uint8)
    target[64:] = ROAD
    target[64:, :40] = target[64:, -40:] = SIDEWALK
    return np.full((height, width, 3), 100, np.uint8), target


def box(label: int, rows: int, columns: int, height: float = 0.0) -> CutOut:
    """Return a white rectangle with a margin that is not part of it."""
    target = np.full((rows + 2, columns + 2), IGNORE, np.uint8)
    target[1:-1, 1:-1] = label
    return CutOut(np.full((rows + 2, columns + 2, 3), 250, np.uint8), target, height)


def pasted(thing: CutOut, seed: int) -> tuple[np.ndarray, np.ndarray]:
    image, target = street()
    paste_on_road(image, target, thing, horizon_of(target), np.random.default_rng(seed))
    return image, target


def extent(mask: np.ndarray) -> tuple[int, int, int]:
    """Return first row, last row and middle column of a mask."""
    rows, columns = np.nonzero(mask)
    return int(rows.min()), int(rows.max()), int(columns.mean())


def test_unknown_objects_stand_on_the_road_and_are_larger_when_nearer():
    _, empty = street()
    ratios, on_road, sidewalk, feet = [], 0, 0, []
    for seed in range(300):
        image, target = pasted(box(OOD, 40, 20), seed)
        first, last, middle = extent(target == OOD)
        # the cut-out has an empty row below its object, and the edge may take one more
        foot = min(last + 2, 159)
        on_road += empty[foot, middle] == ROAD
        sidewalk += empty[foot, middle] == SIDEWALK
        if empty[foot, middle] == ROAD and first > 2:
            feet.append(foot)
            ratios.append((last - first + 1) * 42 / 40 / max(foot - (64 - 0.03 * 160), 12))
        assert last - first + 1 <= 0.75 * 160 + 1
        assert np.abs(image.astype(int) - 100).max() > 20
    assert on_road > 0.8 * 300
    assert 0 < sidewalk < 0.2 * 300
    assert min(feet) < 75 < 150 < max(feet)
    near, far = (np.array(ratios)[np.array(feet) > 110], np.array(ratios)[np.array(feet) < 90])
    for own in (near, far):  # relative to the distance below the horizon, sizes are alike
        assert 0.45 < own.mean() < 0.85
        assert own.max() < 1.3
    assert min(ratios) > 0.08


def test_the_edge_is_ignored_and_everything_else_keeps_its_label():
    (before_image, before), rings = street(), 0
    for thing, label in ((box(OOD, 40, 30), OOD), (box(PERSON, 60, 24, 50.0), PERSON)):
        for seed in range(60):
            image, target = pasted(thing, seed)
            own, ring = target == label, (target == IGNORE)
            assert own.any()
            rings += int(ring.any())
            assert np.array_equal(target[~own & ~ring], before[~own & ~ring])
            assert not (ring & ~binary_dilation(own, iterations=4)).any()
            # far from the object nothing changed; at pixels that keep another label, little did
            changed = (image != before_image).any(2)
            assert not (changed & ~binary_dilation(own, iterations=9)).any()
            difference = np.abs(image.astype(int) - before_image)[~own & ~ring]
            assert difference.max() <= 0.31 * 150
    assert rings > 100  # of 120: the sharpest edges have none


def test_known_objects_keep_their_labels_and_their_size():
    target = box(RIDER, 40, 20, 44.0).target.copy()
    target[25:-1, 1:-1] = BICYCLE
    thing = CutOut(np.full((*target.shape, 3), 30, np.uint8), target, 44.0)
    heights = []
    for seed in range(100):
        _, found = pasted(thing, seed)
        rider, bicycle = found == RIDER, found == BICYCLE
        assert OOD not in found
        if rider.any():
            assert extent(rider)[1] < extent(bicycle)[0]  # the rider above the bicycle
            heights.append(extent(bicycle)[1] - extent(rider)[0] + 1)
    assert 0.6 * 42 - 2 < min(heights) < 0.7 * 42
    assert 1.2 * 42 < max(heights) < 1.3 * 42 + 2


def test_known_objects_of_other_places_are_as_high_as_their_distance_wants():
    places = []
    for seed in range(200):
        _, found = pasted(box(PERSON, 40, 12), seed)
        assert OOD not in found
        if (person := found == PERSON).any():
            top, foot = extent(person)[:2]
            places.append((foot - top + 1) / max(foot - horizon_of(street()[1]), 12))
    # the parts that lie beyond the picture's edge and the limits of 10 px and 75 % aside, 0.6 to 1.4
    assert 0.5 < min(places) < 0.75
    assert 1.2 < max(places) < 1.5


def test_colours_move_towards_the_place_and_contrast_only_falls():
    ground, thing = street()[0][0, 0, 0], box(OOD, 60, 60)
    thing.image[::2] = 150  # stripes of 150 and 250, mean 200
    means = []
    for seed in range(200):
        image, target = pasted(thing, seed)
        if (target == OOD).sum() > 400:
            means.append(image[target == OOD].mean())
    assert max(means) < 210
    assert min(means) > 200 - 0.6 * (200 - ground) - 10
    assert 160 < np.mean(means) < 180


def test_without_road_or_sidewalk_objects_are_anywhere_in_the_lower_three_quarters():
    feet = []
    for seed in range(200):
        image, target = np.full((160, 320, 3), 100, np.uint8), np.full((160, 320), BUILDING, np.uint8)
        assert horizon_of(target) == 0.35 * 160
        paste_on_road(image, target, box(OOD, 40, 30), horizon_of(target), np.random.default_rng(seed))
        feet.append(extent(target == OOD)[1])
    assert 36 <= min(feet) < 50
    assert max(feet) > 150


def proxy(*boxes: tuple[int, int, int, int]) -> Sample:
    """Return a proxy of 128 x 128 px with OoD boxes: top, left, height, width."""
    target = torch.full((128, 128), IGNORE, dtype=torch.uint8)
    for top, left, height, width in boxes:
        target[top : top + height, left : left + width] = OOD
    return Sample(torch.arange(3 * 128 * 128).remainder(251).to(torch.uint8).reshape(3, 128, 128), target, "proxy")


def test_one_large_region_of_a_proxy_is_cut_out():
    several = proxy((10, 20, 8, 8), (60, 70, 30, 20), (5, 100, 7, 7))
    sizes = [cut_proxy(several, np.random.default_rng(seed)).target.shape for seed in range(40)]
    assert set(sizes) == {(8, 8), (30, 20)}  # 7 x 7 < 128 x 128 / 256 = 8 x 8
    assert 8 < sizes.count((8, 8)) < 32  # as likely as another, whatever its size
    for seed in range(40):
        cut = cut_proxy(several, np.random.default_rng(seed))
        if cut.target.shape == (30, 20):
            expected = several.image[:, 60:90, 70:90].permute(1, 2, 0).numpy()
            assert np.array_equal(cut.image, expected)
            assert (cut.target == OOD).all()
    assert cut_proxy(proxy((3, 3, 2, 5), (9, 9, 4, 4)), np.random.default_rng(0)).target.shape == (4, 4)
    assert cut_proxy(proxy(), np.random.default_rng(0)) is None


def write(folder: Path, name: str, image: np.ndarray, target: np.ndarray) -> Frame:
    frame = Frame(name, folder / f"{name}.png", "", folder / f"{name}_target.png", "")
    Image.fromarray(image).save(frame.image)
    Image.fromarray(target).save(frame.target)
    return frame


@pytest.fixture
def frames(tmp_path: Path) -> list[Frame]:
    """Return four labelled frames, one without labels and two proxies."""
    found = []
    for number in range(4):
        image, target = street(128, 256)
        image[:] += np.uint8(number)
        target[70:100, 60:70] = PERSON  # 30 x 10 px: 120 x 40 in frames of 512 rows
        target[80:90, 100:130] = CAR
        target[60:66, 100:106] = SIGN
        target[66:68, 150:152] = PERSON  # too small
        target[40:90, 0:30] = CAR  # at the edge
        target[90:96, 200:212], target[80:90, 203:209] = BICYCLE, RIDER
        found.append(write(tmp_path, str(number), image, target))
    found.append(write(tmp_path, "drive", street(128, 256)[0], np.full((128, 256), IN, np.uint8)))
    for number in range(2):
        own = proxy((40, 40, 50, 30 + number))
        found.append(write(tmp_path, f"proxy{number}", own.image.permute(1, 2, 0).numpy(), own.target.numpy()))
    return found


def test_known_things_are_cut_out_by_kind(frames):
    found = cut_known([(frame, 1.0) for frame in frames[:5]], seed=0, workers=2)
    shapes = [{thing.target.shape for thing in kind} for kind in found]
    assert shapes == [{(6, 6)}, {(30, 10)}, {(16, 12)}, {(10, 30)}, {(6, 12)}]
    assert [len(kind) for kind in found] == [4] * 5
    labels = [{int(label) for thing in kind for label in np.unique(thing.target)} for kind in found]
    assert labels == [{SIGN}, {PERSON}, {RIDER, BICYCLE, IGNORE}, {CAR}, {BICYCLE}]
    assert {thing.height for thing in cut_known([(frames[0], 1.5)], seed=0, workers=1)[1]} == {45.0}
    colours = [[int(thing.image[0, 0, 0]) for thing in found[1]] for _ in range(2)]
    assert sorted(colours[0]) == [100, 101, 102, 103]  # each frame's own picture
    with pytest.raises(ValueError, match=r"train\.known_objects: .*no thing"):
        cut_known([(frames[4], 1.0)], seed=0, workers=1)


def test_things_of_photos_of_other_places_are_one_kind(frames):
    photo = write(frames[0].image.parent, "photo", *street(64, 128))
    target = np.full((64, 128), IGNORE, np.uint8)
    target[0:40, 0:20], target[50:54, 60:67], target[50:60, 100:110] = PERSON, PERSON, CAR  # the second: 28 px < 1/256
    Image.fromarray(target).save(photo.target)
    *street_kinds, others = cut_known([(frames[0], 1.0), (photo, 0.0)], seed=0, workers=1)
    assert [len(kind) for kind in street_kinds] == [1] * 5
    assert {(thing.target.shape, int(thing.target[0, 0]), thing.height) for thing in others} == {
        ((40, 20), PERSON, 0.0),
        ((10, 10), CAR, 0.0),
    }


def test_cut_outs_are_bounded_and_the_same_for_any_number_of_threads(frames, monkeypatch):
    labelled = [(frame, 1.0) for frame in frames[:4]]
    one, two = (cut_known(labelled, seed=3, workers=workers) for workers in (1, 3))
    for left, right in zip(one, two, strict=True):
        assert all(np.array_equal(a.image, b.image) for a, b in zip(left, right, strict=True))
    monkeypatch.setattr("meta_ood.training.cutouts._BYTES", 2500)  # a person takes 30 x 10 x 4 = 1,200
    assert [len(kind) for kind in cut_known(labelled, seed=3, workers=1)] == [4, 2, 3, 2, 4]


def dataset(frames: list[Frame], **options: float) -> SegmentationDataset:
    known = cut_known([(frame, 1.0) for frame in frames[:4]], seed=0, workers=1)
    return SegmentationDataset(frames, Augmentation((64, 128), 0.2), on_road=OnRoad(range(5, 7), known, **options))


def test_samples_hold_what_was_asked_for_and_depend_on_the_seed_alone(frames):
    plain, always = dataset(frames), dataset(frames, known_objects=1.0, known_objects_clean=1.0)
    without = SegmentationDataset(frames, Augmentation((64, 128), 0.2))
    more = 0
    for seed in range(40):
        first, again = (own.draw(seed % 4, 5, (seed,)) for own in (always, always))
        assert torch.equal(first.image, again.image)
        assert torch.equal(first.target, again.target)
        assert (plain.draw(seed % 4, 5, (seed,)).target == OOD).any()
        # without objects, the crop is that of a dataset without pasting
        assert torch.equal(plain.draw(seed % 4, -1, (seed,)).image, without.draw(seed % 4, -1, (seed,)).image)
        clean = always.draw(seed % 4, -1, (seed,))
        assert not (clean.target == OOD).any()
        more += int(not torch.equal(clean.target, without.draw(seed % 4, -1, (seed,)).target))
    assert more == 40
    assert torch.equal(without[0].image, dataset(frames)[0].image)  # the kept frame is not painted over


@pytest.mark.parametrize(("scale", "least", "most"), [(1.0, 40, 40), (0.5, 40, 40), (2.0, 32, 64)])
def test_known_objects_are_larger_in_enlarged_sets(scale, least, most, monkeypatch):
    heights: list[float] = []
    monkeypatch.setattr(pasting, "paste_on_road", lambda image, target, thing, *_: heights.append(thing.height))
    own = OnRoad(range(0), [[box(PERSON, 40, 16, 40.0)]], known_objects_clean=1.0)
    target, paste = own.prepare(torch.from_numpy(street()[1]), [], scale)
    for seed in range(100):
        paste(torch.zeros(3, 160, 320, dtype=torch.uint8), target, np.random.default_rng(seed))
    assert least <= min(heights) <= least + 1
    assert most - 1 <= max(heights) <= most
    assert 3.2 < len(heights) / 100 < 3.8  # 2 + Poisson(1.5)


def test_frames_without_labels_get_objects_and_no_labels(frames):
    own = dataset(frames, known_objects=1.0, known_objects_clean=1.0)
    seen, unknown = set(), 0
    for seed in range(40):
        sample = own.draw(4, 6, (seed,))
        unknown += int((sample.target == OOD).any())
        seen |= set(sample.target.unique().tolist())
        clean = [data.draw(4, -1, (seed,)).image for data in (own, SegmentationDataset(frames, own.transform))]
        assert torch.equal(*clean)
    assert unknown > 35  # a known object may hide a small one
    assert ROAD not in seen
    assert {OOD, IGNORE, IN, PERSON, CAR} <= seen
    assert (own[4].target == IN).all()


def test_up_to_two_further_proxies():
    counts = [OnRoad(range(5, 9)).choose(5, np.random.default_rng(seed)) for seed in range(2000)]
    assert all(chosen[0] == 5 for chosen in counts)
    assert {index for chosen in counts for index in chosen[1:]} == {5, 6, 7, 8}
    shares = np.bincount([len(chosen) for chosen in counts]) / 2000
    np.testing.assert_allclose(shares, [0, 3 / 8, 1 / 2, 1 / 8], atol=0.04)
    assert OnRoad(range(5, 9)).choose(-1, np.random.default_rng(0)) == []
