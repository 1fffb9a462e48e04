import numpy as np
import pytest
import torch

from meta_ood.data.labels import IGNORE, OOD
from meta_ood.inference.batches import to_unit_range
from meta_ood.training.transforms import Augmentation, paste


def picture(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an image whose red and green say row and column, and a target that says the same."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = torch.stack([rows, columns, torch.full_like(rows, 200)]).to(torch.uint8)
    return image, (rows // 8 * 16 + columns // 8).to(torch.uint8)


@pytest.mark.parametrize("size", [(64, 96), (32, 32), (20, 70), (70, 20), (9, 9)])
@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_crops_have_one_size_and_image_and_target_stay_together(size, jitter):
    transform = Augmentation(32, scale_jitter=jitter)
    for seed in range(20):
        image, target = transform(*picture(*size), np.random.default_rng(seed))
        assert image.shape == (3, 32, 32)
        assert target.shape == (32, 32)
        inside = target != IGNORE
        assert inside.any()
        if not jitter:
            assert (image[2] == 200)[inside].all()
            assert (image[:, ~inside] == 0).all()
            own = image[0].int() // 8 * 16 + image[1].int() // 8
            assert (own == target)[inside].all()
        else:
            strayed = (image[0].int() // 8 * 16 + image[1].int() // 8 != target) & inside
            assert strayed.float().mean() < 0.5  # neighbours at the borders of the blocks
            assert (image[0].int() - target.int() // 16 * 8)[inside].abs().max() < 8 + 4


@pytest.mark.parametrize("jitter", [0.0, 0.4])
def test_crops_of_two_sides(jitter):
    transform = Augmentation((24, 40), scale_jitter=jitter, flip=0)
    for seed in range(20):
        image, target = transform(*picture(64, 96), np.random.default_rng(seed))
        assert image.shape == (3, 24, 40)
        assert target.shape == (24, 40)
        spans = [float(np.ptp(image[axis].numpy())) / (side - 1) for axis, side in ((0, 24), (1, 40))]
        assert abs(spans[0] - spans[1]) < 0.12  # the image is not stretched
        assert 1 - jitter - 0.05 < spans[0] < 1 / (1 - jitter) + 0.05
        square = Augmentation(24, jitter)(*picture(64, 96), np.random.default_rng(seed))
        pair = Augmentation((24, 24), jitter)(*picture(64, 96), np.random.default_rng(seed))
        assert torch.equal(square[0], pair[0])


def test_scale_enlarges():
    one, two = (
        Augmentation((32, 48), flip=0)(*picture(96, 128), np.random.default_rng(0), scale) for scale in (1.0, 2.0)
    )
    assert np.ptp(one[0][0].numpy()) == 31
    assert 14 <= np.ptp(two[0][0].numpy()) <= 16


@pytest.mark.parametrize("margin", [1, 3])
def test_the_margin_of_proxies(margin):
    target = torch.from_numpy(np.random.default_rng(0).choice(np.array([3, OOD, IGNORE], np.uint8), (12, 10)))
    target[2:11, 1:9] = OOD
    image = torch.zeros(3, 12, 10, dtype=torch.uint8)
    _, found = Augmentation((12, 10), flip=0, proxy_margin=margin)(image, target, np.random.default_rng(0))
    for row in range(12):
        for column in range(10):
            around = target[max(0, row - margin) : row + margin + 1, max(0, column - margin) : column + margin + 1]
            left_out = bool(target[row, column] == OOD) and bool((around != OOD).any())
            assert found[row, column] == (IGNORE if left_out else target[row, column])
    assert (found == OOD).any()
    assert Augmentation((12, 10), flip=0)(image, target, np.random.default_rng(0))[1].equal(target)


def test_photometric_changes_come_last_and_shift_no_draw():
    plain, varied = Augmentation(24, 0.3, 0.3), Augmentation(24, 0.3, 0.3, photometric=1.0)
    (image, target), (other, own) = (
        transform(*picture(64, 96), np.random.default_rng(1)) for transform in (plain, varied)
    )
    assert torch.equal(target, own)
    assert not torch.equal(image, other)


def test_padding_never_stretches():
    image, target = Augmentation(64, flip=0)(*picture(16, 24), np.random.default_rng(0))
    inside = target != IGNORE
    assert int(inside.sum()) == 16 * 24
    rows, columns = torch.nonzero(inside, as_tuple=True)
    assert torch.equal(image[0][inside].int(), (rows - rows.min()).int())
    assert torch.equal(image[1][inside].int(), (columns - columns.min()).int())


def test_a_crop_of_the_image_size_is_the_image():
    image, target = picture(48, 48)
    own, label = Augmentation(48, flip=0)(image, target, np.random.default_rng(0))
    assert torch.equal(own, image)
    assert torch.equal(label, target)
    own, label = Augmentation(48, flip=1)(image, target, np.random.default_rng(0))
    assert torch.equal(own, image.flip(-1))
    assert torch.equal(label, target.flip(-1))


def test_crops_reach_every_corner():
    transform = Augmentation(8, flip=0)
    image, target = picture(12, 12)
    generator = np.random.default_rng(0)
    corners = {tuple(transform(image, target, generator)[0][:2, 0, 0].tolist()) for _ in range(300)}
    assert corners == {(row, column) for row in range(5) for column in range(5)}


def test_scale_jitter_covers_its_range():
    transform = Augmentation(32, scale_jitter=0.5, flip=0)
    image, target = picture(128, 128)
    spans = []
    for seed in range(200):
        own, _ = transform(image, target, np.random.default_rng(seed))
        spans.append(int(own[0].max()) - int(own[0].min()) + 1)
    assert min(spans) < 20  # enlarged nearly twice
    assert max(spans) > 56  # reduced nearly by half
    assert 28 < np.exp(np.mean(np.log(spans))) < 36


def test_colour_jitter_leaves_the_target_alone_and_changes_the_image():
    image, target = picture(32, 32)
    own, label = Augmentation(32, colour_jitter=0.5, flip=0)(image, target, np.random.default_rng(3))
    assert torch.equal(label, target)
    assert not torch.equal(own, image)
    assert own.dtype == torch.uint8


def test_same_draws_same_sample():
    transform = Augmentation(24, 0.3, 0.3)
    first, second, other = (transform(*picture(64, 96), np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_paste_follows_its_rules():
    street = torch.full((3, 100, 200), 50, dtype=torch.uint8)
    target = torch.full((100, 200), 3, dtype=torch.uint8)
    proxy = torch.zeros(3, 60, 60, dtype=torch.uint8)
    regions = torch.full((60, 60), IGNORE, dtype=torch.uint8)
    regions[5:25, 5:15], regions[40:44, 30:34] = OOD, OOD
    proxy[:, 5:25, 5:15], proxy[:, 40:44, 30:34] = 250, 150
    heights, large = [], 0
    for seed in range(200):
        image, label = paste(street, target, proxy, regions, np.random.default_rng(seed))
        found = torch.nonzero(label == OOD)
        assert len(found)
        assert ((label == OOD) | (label == 3)).all()
        base, top = int(found[:, 0].max()), int(found[:, 0].min())
        assert 40 <= base < 100
        rows, columns = base - top + 1, int(np.ptp(found[:, 1].numpy())) + 1
        assert columns <= rows + 1  # tall or square, cut at the border perhaps
        assert rows <= 51 * (base / 100 - 0.3) / 0.65 + 2
        heights.append(rows)
        changed = (image != street).any(0)
        assert changed[label == OOD].all()
        assert not (changed & (label != OOD)).sum() > 4 * (rows + columns) + 20  # soft edge only
        large += int(image[0][label == OOD].float().mean() > 160)
    assert 150 < large < 200  # by area: 200 : 16
    assert max(heights) > 3 * min(heights)
    assert (street == 50).all()
    assert (target == 3).all()
    none = torch.full((60, 60), IGNORE, dtype=torch.uint8)
    assert paste(street, target, proxy, none, np.random.default_rng(0))[0] is street


def test_unit_range():
    values = to_unit_range(torch.arange(256, dtype=torch.uint8))
    torch.testing.assert_close(values, torch.linspace(0, 1, 256))


def test_a_scale_enlarges_beside_the_jitter():
    ramp = torch.arange(0, 200, 4, dtype=torch.uint8).repeat(3, 50, 1)  # 4 grey levels from column to column
    target = torch.zeros(50, 50, dtype=torch.uint8)
    for scale in (1.0, 2.0, 0.5):
        image, _ = Augmentation(16, flip=0.0)(ramp, target, np.random.default_rng(0), scale)
        steps = image[0, 0].float().diff()[2:-2]
        assert steps.mean() == pytest.approx(4 / scale, abs=0.1)
