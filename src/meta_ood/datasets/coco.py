"""COCO as OoD proxies: what is annotated is OoD; images with a street class are left out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from meta_ood.data.labels import IGNORE, OOD, LabelMap
from meta_ood.datasets.instances import ListedImage, Span, read_instances, read_spans
from meta_ood.datasets.reader import RawFrame, one_of

logger = logging.getLogger(__name__)

BACKGROUNDS = {"ignore": IGNORE, "road": 0, "ood": OOD}
"""Option `background` -> target value of pixels without annotation; 0 is the train id of road."""

_PUBLISHED = (
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "bus",
    "truck",
    "traffic light",
    "stop sign",
)
EXCLUDES: dict[str, tuple[str, ...]] = {
    "street": (*_PUBLISHED, "train"),
    "published": _PUBLISHED,
}
"""Preset of option `exclude` -> category names; an image with any of them is left out."""


def coco(
    root: Path,
    split: str,
    *,
    min_side: int = 480,
    background: str = "ignore",
    exclude: str | Sequence[str] = "street",
    include: Sequence[str] = (),
    images: str = "{split}",
    annotations: str = "annotations/instances_{split}.json",
) -> Iterator[RawFrame]:
    """Read a split of COCO, or of any dataset with a json in COCO's format.

    Parameters
    ----------
    root
        Folder with images and annotations.
    split
        ``train2017``, ``val2017``, or what stands for ``{split}`` in `images` and `annotations`.
    min_side
        Images with a shorter side [px] are left out.
    background
        What pixels without annotation become: ``ignore`` (void), ``road`` (published) or ``ood``.
    exclude
        ``street``, ``published`` (the same without train), or category names: an image with an
        annotation of one of them, crowds too, is left out.
    include
        Category names whose annotations make proxies; all of them if empty.
    images, annotations
        Image folder and json below the root, for a dataset that is not laid out as COCO.

    Raises
    ------
    FileNotFoundError
        If the json or the image folder is missing.
    ValueError
        If an option is wrong, a category is unknown or the json is not in COCO's format.
    """
    fill = BACKGROUNDS[one_of("coco", "background", background, tuple(BACKGROUNDS))]
    if isinstance(min_side, bool) or not isinstance(min_side, int) or min_side < 0:
        raise ValueError(f"coco reader: option min_side: expected pixels >= 0, got {min_side!r}")
    folder, json_path = places(root, split, images, annotations)
    instances = read_instances(json_path)
    categories = {name: number for number, name in instances.categories.items()}
    if isinstance(exclude, str):
        one_of("coco", "exclude", exclude, tuple(EXCLUDES))
        dropped = {categories[name] for name in EXCLUDES[exclude] if name in categories}
    else:
        dropped = {_category(categories, "exclude", name) for name in exclude}
    kept = {_category(categories, "include", name) for name in include} or set(categories.values())

    is_dropped = np.array([number in dropped for number in instances.category_ids], bool)
    is_kept = np.array([number in kept - dropped for number in instances.category_ids], bool)
    excluded = set(instances.spans(is_dropped[instances.kinds]))
    spans = instances.spans(is_kept[instances.kinds])
    for image in on_disk(folder, instances.images):
        size = image.height, image.width
        if image.id in excluded or min(size) < min_side:
            continue
        path = folder / image.file_name
        target = partial(read_target, json_path, spans.get(image.id, ()), size, fill)
        yield RawFrame(path.stem, path, path.stem, target)


def _category(categories: Mapping[str, int], option: str, name: str) -> int:
    if name not in categories:
        known = ", ".join(sorted(categories))
        raise ValueError(f"coco reader: option {option}: no category {name!r}; known: {known}")
    return categories[name]


def places(
    root: Path,
    split: str,
    images: str = "{split}",
    annotations: str = "annotations/instances_{split}.json",
) -> tuple[Path, Path]:
    """Return the image folder and the json of a split."""
    return root / images.replace("{split}", split), root / annotations.replace("{split}", split)


def on_disk(folder: Path, images: Sequence[ListedImage]) -> list[ListedImage]:
    """Return the json's images that lie in a folder, by file name; differences are logged."""
    if not folder.is_dir():
        raise FileNotFoundError(f"COCO: the image folder {folder} is missing")
    names = {path.name for path in folder.iterdir() if path.is_file()}
    listed = {image.file_name for image in images}
    for what, odd in (
        ("on disk but not in the json", names - listed),
        ("in the json but not on disk", listed - names),
    ):
        if odd:
            some = ", ".join(sorted(odd)[:3]) + (", ..." if len(odd) > 3 else "")
            logger.warning("%s: skipped %d %s: %s", folder, len(odd), what, some)
    present = [image for image in images if image.file_name in names]
    if not present:
        raise FileNotFoundError(f"COCO: no image of the json lies in {folder}")
    return sorted(present, key=lambda image: image.file_name)


def read_target(
    path: Path, spans: Sequence[Span], size: tuple[int, int], background: int
) -> LabelMap:
    """Read an image's annotations from the json and draw them; see :func:`rasterise`."""
    segmentations = [annotation["segmentation"] for annotation in read_spans(path, spans)]
    return rasterise(segmentations, size, background)


def rasterise(segmentations: Sequence[Any], size: tuple[int, int], background: int) -> LabelMap:
    """Draw annotations: ``OOD`` wherever any of them covers, `background` elsewhere.

    Parameters
    ----------
    segmentations
        COCO segmentations: a list of polygons, or an RLE, compressed or not.
    size
        Height and width [px].
    background
        Target value elsewhere.

    Returns
    -------
    ``(H, W) uint8`` target.
    """
    from pycocotools import mask

    target = np.full(size, background, np.uint8)
    height, width = size
    runs: list[Any] = []
    for segmentation in segmentations:
        if isinstance(segmentation, list):
            runs.extend(mask.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation["counts"], list):
            runs.append(mask.frPyObjects(segmentation, height, width))
        else:
            runs.append(segmentation)
    if runs:
        with warnings.catch_warnings():  # pycocotools 2.0 has not caught up with NumPy 2
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            target[mask.decode(mask.merge(runs)).astype(bool)] = OOD
    return target
