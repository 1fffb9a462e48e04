from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from meta_ood.data.frames import Frame
from meta_ood.inference.batches import read
from meta_ood.training.loader import (
    FrameSet,
    SegmentationDataset,
    count_classes,
    hold_out,
    load_batches,
    mix_proxies,
    pool_of,
)
from meta_ood.training.transforms import Augmentation


@pytest.fixture
def frames(tmp_path: Path) -> list[Frame]:
    found = []
    for number in range(11):
        rng = np.random.default_rng(number)
        image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
        image[0, 0] = number
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        target = np.full((20, 30), number, np.uint8)
        Image.fromarray(target).save(tmp_path / f"{number}_target.png")
        found.append(Frame(str(number), tmp_path / f"{number}.png", "", tmp_path / f"{number}_target.png", ""))
    return found


def test_a_frame_is_read_as_it_is(frames):
    sample = SegmentationDataset(frames)[7]
    expected = np.asarray(Image.open(frames[7].image))
    assert torch.equal(sample.image, torch.tensor(expected).permute(2, 0, 1))
    assert (sample.target == 7).all()
    assert sample.image_id == "7"


def test_what_does_not_fit_is_named(frames, tmp_path):
    grey = tmp_path / "grey.png"
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(grey)
    with pytest.raises(ValueError, match=r"x: image \(20, 30\) and target \(5, 5\) differ"):
        read(Frame("x", frames[0].image, "", grey, ""))
    with pytest.raises(ValueError, match=r"0\.png: .*expected label ids"):
        read(Frame("x", frames[0].image, "", frames[0].image, ""))
    with pytest.raises(FileNotFoundError):
        read(Frame("x", tmp_path / "none.png", "", grey, ""))


def test_the_cache_gives_the_same_and_is_bounded(frames):
    dataset = SegmentationDataset(frames, cache=20 * 30 * 4 * 3)
    first = [dataset[i] for i in range(11)]
    again = [dataset[i] for i in range(11)]
    assert all(torch.equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    assert [a is b for a, b in zip(first, again, strict=True)] == [True] * 3 + [False] * 8


def test_mix_has_every_street_once_and_proxies_by_ratio():
    for epoch in range(5):
        plan, pasted = mix_proxies(30, 40, 0.5, seed=1, epoch=epoch).T
        assert (pasted == -1).all()
        assert sorted(plan[plan < 30]) == list(range(30))
        drawn = plan[plan >= 30]
        assert len(drawn) == len(set(drawn.tolist())) == 15
        assert drawn.max() < 70
    assert (plan >= 30)[:15].any()
    assert (plan >= 30)[-15:].any()


def test_mix_redraws_and_repeats_only_as_told():
    def proxies(epoch: int, redraw: bool, seed: int = 0) -> set[int]:
        plan = mix_proxies(30, 40, 0.5, seed=seed, epoch=epoch, redraw=redraw)[:, 0]
        return set(plan[plan >= 30].tolist())

    assert proxies(0, True) != proxies(1, True)
    assert proxies(0, False) == proxies(1, False) == proxies(0, True)
    assert proxies(0, False) != proxies(0, False, seed=1)
    order = [mix_proxies(30, 40, 0.5, seed=0, epoch=e, redraw=False).tolist() for e in (0, 1)]
    assert order[0] != order[1]
    plan = mix_proxies(10, 4, 1.0, seed=0, epoch=0)[:, 0]
    counts = np.bincount(plan[plan >= 10] - 10)
    assert counts.sum() == 10
    assert set(counts) == {2, 3}
    assert len(mix_proxies(10, 0, 0.0, seed=0, epoch=0)) == 10
    with pytest.raises(ValueError, match="needs proxies"):
        mix_proxies(10, 0, 0.5, seed=0, epoch=0)


def test_pasted_proxies_come_with_a_street():
    plan = mix_proxies(30, 40, 0.5, seed=1, epoch=0, style="pasted")
    assert len(plan) == 45
    assert plan[:, 0].max() < 30
    pasted = plan[plan[:, 1] >= 0, 1]
    assert len(set(pasted.tolist())) == 15
    assert pasted.min() >= 30
    assert sorted(set(plan[plan[:, 1] < 0, 0].tolist())) == list(range(30))


def test_sets_are_drawn_by_weight_and_no_frame_repeats_before_all_were_drawn():
    pool = [(50, 3.0), (7, 1.0)]
    drawn = []
    for epoch in range(9):
        plan = mix_proxies(pool, [(4, 1.0), (2, 2.0)], 0.6, seed=1, epoch=epoch, samples=20)
        streets = np.sort(plan[plan[:, 0] < 57, 0])
        assert len(streets) == 20
        assert (streets < 50).sum() == 15
        proxies = plan[plan[:, 0] >= 57, 0] - 57
        assert np.bincount(proxies, minlength=6).tolist() == [1, 1, 1, 1, 4, 4]  # 12, of which 2 of 3 from the second
        drawn.append(streets)
    uses = np.bincount(np.concatenate(drawn), minlength=57)
    assert set(uses[:50]) == {2, 3}  # 9 x 15 = 135 draws of 50 frames
    assert set(uses[50:]) == {6, 7}  # 9 x 5 = 45 draws of 7 frames
    assert not np.array_equal(drawn[0], drawn[1])


def test_without_weights_all_frames_count_alike(frames):
    sets = [FrameSet("a", frames[:3]), FrameSet("b", frames[3:])]
    assert pool_of(sets) == [(11, 1.0)]
    assert (mix_proxies(pool_of(sets), 5, 1.0, seed=3, epoch=2) == mix_proxies(11, 5, 1.0, seed=3, epoch=2)).all()
    assert pool_of([FrameSet("a", frames[:3], 0.2), FrameSet("b", frames[3:], 0.8)]) == [(3, 0.2), (8, 0.8)]
    # fewer samples than frames: the next epoch goes on where one ends
    two = [mix_proxies(11, 0, 0, seed=0, epoch=epoch, samples=5)[:, 0] for epoch in (0, 1)]
    assert len(set(np.concatenate(two))) == 10


def test_pasted_proxies_come_with_streets_of_the_epoch():
    plan = mix_proxies([(100, 1.0), (100, 0.5)], 10, 2.0, seed=0, epoch=0, samples=6, style="pasted")
    streets = set(plan[plan[:, 1] < 0, 0])
    assert len(streets) == 6
    assert set(plan[plan[:, 1] >= 0, 0]) <= streets


def test_a_sample_has_name_and_scale_of_its_set(frames):
    scales: list[float] = []

    def transform(image, target, generator, scale, pasting):
        scales.append(scale)
        return image, target

    dataset = SegmentationDataset.of([FrameSet("a", frames[:2]), FrameSet("b", frames[2:], scale=1.7)], transform)
    assert [dataset.draw(index, -1, (0,)).dataset for index in (0, 1, 2, 10)] == ["a", "a", "b", "b"]
    assert scales == [1.0, 1.0, 1.7, 1.7]


def test_hold_out_splits(frames):
    learned, held = hold_out(frames, 0.3, seed=0)
    assert len(held) == 3
    assert sorted(f.image_id for f in learned + held) == sorted(f.image_id for f in frames)
    assert held != hold_out(frames, 0.3, seed=1)[1]
    assert hold_out(frames, 0.0, seed=0) == (frames, [])
    assert len(hold_out(frames, 1.0, seed=0)[0]) == 1


def test_classes_are_counted_without_void(frames):
    Image.fromarray(np.array([[0] * 29 + [255]] * 20, np.uint8)).save(frames[5].target)
    expected = [20 * 30] * 6
    expected[0], expected[5] = 20 * 30 + 20 * 29, 0
    assert count_classes(frames, 6, workers=2).tolist() == expected


def batches(frames, **options):
    dataset = SegmentationDataset(frames, Augmentation(16, 0.2, 0.2))
    order = [3, 1, 4, 10, 5, 9, 2, 6, 8, 7, 0]
    plan = np.stack([order, np.full(11, -1)], axis=1)
    arguments = {"seed": 0, "epoch": 0} | options
    return list(load_batches(dataset, plan, 4, **arguments))


def test_batches_follow_the_plan(frames):
    found = batches(frames)
    assert [b.image_ids for b in found] == [["3", "1", "4", "10"], ["5", "9", "2", "6"]]
    assert found[0].images.shape == (4, 3, 16, 16)
    assert found[0].targets.shape == (4, 16, 16)


def same(left, right) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets) for a, b in zip(left, right, strict=True)
    )


def test_batches_depend_on_seed_and_epoch_not_on_workers(frames):
    assert same(batches(frames, workers=1), batches(frames, workers=4))
    assert not same(batches(frames), batches(frames, seed=1))
    assert not same(batches(frames), batches(frames, epoch=1))


def test_batches_resume_at_the_exact_sample(frames):
    assert same(batches(frames)[1:], batches(frames, first=1))


def test_a_pasted_object_is_ood_in_the_sample(frames):
    Image.fromarray(np.full((20, 30), 254, np.uint8)).save(frames[9].target)
    dataset = SegmentationDataset(frames)
    for seed in range(10):
        sample = dataset.draw(2, 9, (seed,))
        assert set(sample.target.unique().tolist()) == {2, 254}
        assert torch.equal(sample.image[:, sample.target == 2], dataset[2].image[:, sample.target == 2])
        assert (dataset[2].target == 2).all()
    assert (dataset.draw(2, 3, (0,)).target == 2).all()  # a proxy without OoD pixels


def test_processes_share_every_batch(frames):
    whole = batches(frames)
    parts = [batches(frames, part=(rank, 2)) for rank in (0, 1)]
    for number, batch in enumerate(whole):
        assert torch.equal(batch.images, torch.cat([p[number].images for p in parts]))
        assert batch.image_ids == parts[0][number].image_ids + parts[1][number].image_ids


def test_a_broken_frame_stops_the_loader(frames, tmp_path):
    frames[4].image.write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"4\.png"):
        batches(frames)


def test_an_image_damaged_in_the_middle_is_named(frames):
    content = bytearray(frames[4].image.read_bytes())
    content[len(content) // 2] ^= 1
    frames[4].image.write_bytes(content)
    with pytest.raises(ValueError, match=r"4\.png: cannot be read as an image"):
        batches(frames)
    frames[4].image.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"4\.png: cannot be read as an image"):
        SegmentationDataset(frames)[4]


def test_a_consumer_may_leave_early(frames):
    dataset = SegmentationDataset(frames, Augmentation(16))
    plan = np.stack([np.arange(11), np.full(11, -1)], axis=1)
    stream = load_batches(dataset, plan, 4, seed=0, epoch=0, workers=2)
    assert next(stream).image_ids == ["0", "1", "2", "3"]
    stream.close()
