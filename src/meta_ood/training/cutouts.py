"""Objects cut out of images along their labels: unknown ones of proxies, known ones of labelled frames."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import find_objects, label

from meta_ood.data.context import progress
from meta_ood.data.frames import Frame
from meta_ood.data.labels import CITYSCAPES, IGNORE, OOD, LabelMap
from meta_ood.inference.batches import Sample, read, read_ahead

# classes that are cut out together, of which the first must be there, and the least area in frames of 512 rows [px];
# a rider stays on the motorcycle or bicycle, each pixel with its class
_KINDS = tuple(
    (tuple(CITYSCAPES.names.index(name) for name in names), area)
    for names, area in (
        (("traffic light",), 400),
        (("traffic sign",), 400),
        (("person",), 400),
        (("rider", "motorcycle", "bicycle"), 600),
        (("car",), 1500),  # smaller ones are hidden or far away
        (("truck",), 1500),
        (("bus",), 1500),
        (("motorcycle",), 400),
        (("bicycle",), 400),
    )
)
# in frames of 512 rows [px]: a group of persons or a row of cars may be one region, which is larger
_LEAST_SIDE, _MOST_ROWS, _MOST_COLUMNS = 12, 300, 400
_FRAMES = 1000  # that are searched: enough for variety; minutes at 2048 x 1024
_BYTES = 1 << 25  # of the cut-outs of a kind: 32 MiB, about 1,300 cars at 1024 x 512
_LEAST_PART = 1 / 256  # part of its image that an object of a photo covers: 1,200 px of COCO's 640 x 480


class CutOut(NamedTuple):
    """An object in its bounding box."""

    image: npt.NDArray[np.uint8]  # (h, w, 3)
    target: LabelMap  # (h, w): labels of the object's pixels, IGNORE around it
    height: float = 0.0  # about how high it is pasted [px]; 0: as its distance wants it


def cut_proxy(proxy: Sample, generator: np.random.Generator) -> CutOut | None:
    """Cut one connected region of OoD pixels out of a proxy; None if it has none.

    It is drawn from the regions that cover at least 1/256 of the image; if there are none, it is the largest.
    """
    regions = list(_regions(proxy.target.numpy() == OOD))
    if not regions:
        return None
    areas = np.array([region.sum() for _, region in regions])
    large = np.flatnonzero(areas >= _LEAST_PART * proxy.target.numel())
    return _cut(proxy, *regions[int(generator.choice(large)) if len(large) else int(areas.argmax())])


def cut_known(frames: Sequence[tuple[Frame, float]], *, seed: int, workers: int) -> list[list[CutOut]]:
    """Cut known things out of labelled frames: traffic lights and signs, persons, riders, vehicles and cycles.

    A thing is a connected region of its class that touches no edge of the frame and is neither tiny nor huge. Frames
    with the factor 0 are photos of other places: any region that covers 1/256 of one is a thing, without a height.

    Args:
        frames: Each with the factor by which training enlarges it, and by which its things are pasted larger. Those
            without labels give nothing. Of more than 1,000, so many are drawn.
        seed: Decides which frames are searched, and in which order: of each kind the first 32 MiB are kept.
        workers: Number of threads.

    Returns:
        For each kind of thing of which there are any, its cut-outs; last those of other places, all together.

    Raises:
        ValueError: If there are none at all.
    """
    order = np.random.default_rng((seed, 4)).permutation(len(frames))[:_FRAMES]
    found: list[list[CutOut]] = [[] for _ in (*_KINDS, "other places")]
    used = np.zeros(len(found), np.int64)  # bytes

    def search(index: int) -> list[tuple[int, CutOut]]:
        frame, scale = frames[index]
        if not scale:
            return [(-1, thing) for thing in _whole_things(read(frame))]
        return [(kind, thing._replace(height=scale * len(thing.target))) for kind, thing in _things(read(frame))]

    searched = read_ahead(search, order.tolist(), workers, ahead=2 * workers)
    for things in progress(searched, "cut out known objects", len(order)):
        for kind, thing in things:
            size = thing.image.nbytes + thing.target.nbytes
            if used[kind] + size <= _BYTES:
                found[kind].append(thing)
                used[kind] += size
    if not any(found):
        raise ValueError("train.known_objects: the labelled training frames show no thing large enough to cut out")
    return [things for things in found if things]


def _things(frame: Sample) -> Iterator[tuple[int, CutOut]]:
    """Yield the number of its kind and the cut-out of each known thing of a frame."""
    target = frame.target.numpy()
    height, width = target.shape
    unit = height / 512  # sizes are those of frames with 512 rows
    for kind, (classes, least) in enumerate(_KINDS):
        for where, region in _regions(np.logical_or.reduce([target == index for index in classes])):
            edges = (where[0].start, where[1].start, height - where[0].stop, width - where[1].stop)
            rows, columns = region.shape
            if (
                min(edges) > 0
                and _LEAST_SIDE * unit <= min(rows, columns)
                and rows <= _MOST_ROWS * unit
                and columns <= _MOST_COLUMNS * unit
                and region.sum() >= least * unit**2
                and (target[where][region] == classes[0]).any()
            ):
                yield kind, _cut(frame, where, region)


def _whole_things(photo: Sample) -> Iterator[CutOut]:
    """Yield the large known things of a photo."""
    target = photo.target.numpy()
    for index in np.unique(target[target < len(CITYSCAPES.names)]):
        for where, region in _regions(target == index):
            if region.sum() >= _LEAST_PART * target.size:
                yield _cut(photo, where, region)


def _regions(mask: npt.NDArray[np.bool_]) -> Iterator[tuple[tuple[slice, slice], npt.NDArray[np.bool_]]]:
    """Yield the bounding box of each connected region of a mask, and the region's own mask within the box."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if len(rows):
        # only the part that holds them is searched: a tenth of the pixels, often
        top, left = rows[0], columns[0]
        numbers, _ = label(mask[top : rows[-1] + 1, left : columns[-1] + 1])
        for number, (down, across) in enumerate(find_objects(numbers), start=1):
            where = slice(top + down.start, top + down.stop), slice(left + across.start, left + across.stop)
            yield where, numbers[down, across] == number


def _cut(sample: Sample, where: tuple[slice, slice], region: npt.NDArray[np.bool_]) -> CutOut:
    """Copy the bounding box of a region of a sample; `region` is its mask within the box."""
    image = sample.image[:, *where].permute(1, 2, 0).contiguous().numpy()
    return CutOut(image, np.where(region, sample.target.numpy()[where], np.uint8(IGNORE)))
