"""COCO as OoD proxies: what is annotated is OoD; images with a street class are left out. Or as known things."""

import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from meta_ood.data.labels import CITYSCAPES, IGNORE, IN, OOD, LabelMap
from meta_ood.data.registry import known_names
from meta_ood.datasets.checks.findings import Finding, find
from meta_ood.datasets.instances import ListedImage, Span, read_instances, read_spans
from meta_ood.datasets.reader import RawFrame, one_of

logger = logging.getLogger(__name__)

# where COCO's files lie below the root
IMAGES, ANNOTATIONS = "{split}", "annotations/instances_{split}.json"
# option background -> target value of pixels without annotation; 0 is the train id of road
BACKGROUNDS = {"ignore": IGNORE, "road": 0, "ood": OOD, "in": IN}
# [px] of the polygons of an annotation; pycocotools takes some 100 bytes for each, people draw some thousand
LONGEST_OUTLINE = 1_000_000
# preset of option exclude -> category names; an image with any of them is left out
_PUBLISHED = ("person", "bicycle", "car", "motorcycle", "bus", "truck", "traffic light", "stop sign")
EXCLUDES: dict[str, tuple[str, ...]] = {"street": (*_PUBLISHED, "train"), "published": _PUBLISHED}


def coco(
    root: Path,
    split: str,
    *,
    min_side: int = 480,
    background: str = "ignore",
    exclude: str | Sequence[str] = "street",
    include: Sequence[str] = (),
    known: Mapping[str, str] | None = None,
    images: str = IMAGES,
    annotations: str = ANNOTATIONS,
    scene: str = "^.+$",
) -> Iterator[RawFrame]:
    """Read a split of COCO, or of any dataset with a json in COCO's format.

    Args:
        root, split: Folder with images and annotations, and what stands for ``{split}`` in the two options' names.
        min_side: Images with a shorter side [px] are left out.
        background: What pixels without annotation become: ``ignore`` (void), ``road`` (published), ``ood``, or ``in``
            (in-distribution, without a class).
        exclude: ``street``, ``published`` (the same without train), or category names: an image with an annotation of
            one of them, crowds too, is left out. Case does not matter in names.
        include: Category names whose annotations make proxies; all of them if empty.
        known: Category name -> class of Cityscapes, such as ``{person: person}``: the opposite of proxies. Only images
            with such annotations are read, whose pixels get the train id; all others are void. `background`, `exclude`
            and `include` do not matter.
        images, annotations: Image folder and json below the root, for a dataset that is not laid out as COCO.
        scene: Regular expression: the part of an image's name that it matches is the scene, the unit of cross
            validation and of the bootstrap; without a match it is the name.

    Raises:
        FileNotFoundError, ValueError: If the json or the folder is missing, or an option or the json is wrong.
    """
    fill = one_of("coco", "background", background, BACKGROUNDS)
    if isinstance(min_side, bool) or not isinstance(min_side, int) or min_side < 0:
        raise ValueError(f"coco reader: option min_side: expected pixels >= 0, got {min_side!r}")
    scene_of = _scenes(scene)
    folder, json_path = places(root, split, images=images, annotations=annotations)
    instances = read_instances(json_path)
    if not folder.is_dir():
        raise FileNotFoundError(f"COCO: the image folder {folder} is missing")
    present, differences = on_disk(folder, instances.images)
    if not present:
        raise FileNotFoundError(f"COCO: no image of the json lies in {folder}")
    for finding in (*instances.findings(), *differences):
        message = f"{finding.text}, such as {finding.files[0]}"
        if finding.level == "error":
            raise ValueError(message)
        logger.warning("%s: %s", message, finding.advice)

    present = [image for image in present if min(image.height, image.width) >= min_side]
    if known is not None:
        spans_of = [(train_id, instances.spans(ids)) for train_id, ids in _classes(instances.categories, known)]
        for image in present:
            drawn = [(train_id, spans[image.id]) for train_id, spans in spans_of if image.id in spans]
            if drawn:
                path, size = folder / image.file_name, (image.height, image.width)
                yield RawFrame(path.stem, path, scene_of(path.stem), partial(read_known, json_path, drawn, size))
        return

    # 1. which categories exclude an image, and which make proxies
    if isinstance(exclude, str):
        preset = one_of("coco", "exclude", exclude, EXCLUDES)
        if missing := missing_categories(preset, instances.categories):
            logger.warning("%s: no category %s", json_path, ", ".join(missing))
        exclude = [name for name in preset if name not in missing]
    dropped = _numbers(instances.categories, "exclude", exclude)
    kept = _numbers(instances.categories, "include", include) or set(instances.categories)

    # 2. the places of the annotations to draw, of images without an excluded category
    excluded, spans = set(instances.spans(dropped)), instances.spans(kept - dropped)
    for image in present:
        path, size = folder / image.file_name, (image.height, image.width)
        if image.id not in excluded:
            target = partial(read_target, json_path, spans.get(image.id, ()), size, fill)
            yield RawFrame(path.stem, path, scene_of(path.stem), target)


def _scenes(expression: str) -> Callable[[str], str]:
    """Return the function from the name of an image to its scene."""
    try:
        pattern = re.compile(expression)
    except (re.error, TypeError) as error:
        raise ValueError(f"coco reader: option scene: {expression!r} is no pattern: {error}") from None
    return lambda name: found[0] if (found := pattern.search(name)) else name


def _plain(name: str) -> str:
    """Return a category's name for comparison: "Traffic_Light" is "traffic light"."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def missing_categories(names: Sequence[str], categories: Mapping[int, str]) -> list[str]:
    """Return those of some names that no category has, whatever their case."""
    known = {_plain(name) for name in categories.values()}
    return [name for name in names if _plain(name) not in known]


def _numbers(categories: Mapping[int, str], option: str, names: Sequence[str]) -> set[int]:
    """Return the ids of the categories with these names; an unknown name lists the known ones."""
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"coco reader: option {option}: expected a list of names, got {names!r}")
    if missing := missing_categories(names, categories):
        known = ", ".join(sorted(categories.values()))
        raise ValueError(f"coco reader: option {option}: no category {missing[0]!r}; known: {known}")
    wanted = {_plain(name) for name in names}
    return {number for number, name in categories.items() if _plain(name) in wanted}


def _classes(categories: Mapping[int, str], known: object) -> list[tuple[int, set[int]]]:
    """Return the train id and the category ids of each entry of the option `known`."""
    if not isinstance(known, Mapping) or not known:
        raise ValueError(f"coco reader: option known: expected a table category: class, got {known!r}")
    for name in known.values():
        if name not in CITYSCAPES.names:
            raise ValueError(f"coco reader: option known: {name!r} is unknown; {known_names(name, CITYSCAPES.names)}")
    return [
        (CITYSCAPES.names.index(name), _numbers(categories, "known", [category])) for category, name in known.items()
    ]


def places(
    root: Path, split: str, *, images: str = IMAGES, annotations: str = ANNOTATIONS, **_: object
) -> tuple[Path, Path]:
    """Return the image folder and the json of a split; the reader's other options do not matter."""
    return root / images.replace("{split}", split), root / annotations.replace("{split}", split)


def on_disk(folder: Path, images: Sequence[ListedImage]) -> tuple[list[ListedImage], list[Finding]]:
    """Return the json's images that lie in a folder, by file name, and how the two differ."""
    names = {path.name for path in folder.iterdir() if path.is_file()}
    listed = {image.file_name for image in images}
    present = sorted((image for image in images if image.file_name in names), key=lambda image: image.file_name)
    json_only, disk_only = ([folder / name for name in odd] for odd in (listed - names, names - listed))
    return present, [*find("json_only", json_only), *find("disk_only", disk_only)]


def read_known(path: Path, drawn: Iterable[tuple[int, Sequence[Span]]], size: tuple[int, int]) -> LabelMap:
    """Read an image's annotations of known things and draw them with their train ids; void elsewhere."""
    target = np.full(size, IGNORE, np.uint8)
    for train_id, spans in drawn:
        target[read_target(path, spans, size, IGNORE) == OOD] = train_id
    return target


def read_target(path: Path, spans: Iterable[Span], size: tuple[int, int], background: int) -> LabelMap:
    """Read an image's annotations and draw them: ``OOD`` where any of them covers, else `background`.

    What they cover is :func:`segmentation_of`.
    """
    from pycocotools import mask

    height, width = size
    runs: list[Any] = []
    for annotation in read_spans(path, spans):
        segmentation: Any = segmentation_of(annotation)
        if fault := segmentation_fault(segmentation, height, width):
            raise ValueError(f"{path}, annotation {annotation.get('id')}: {fault}")
        is_text = isinstance(segmentation, dict) and isinstance(segmentation["counts"], str)
        drawn: Any = segmentation if is_text else mask.frPyObjects(segmentation, height, width)
        runs += drawn if isinstance(drawn, list) else [drawn]
    target = np.full(size, background, np.uint8)
    if runs:
        with warnings.catch_warnings():  # pycocotools 2.0 has not caught up with NumPy 2
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
            target[mask.decode(mask.merge(runs)).astype(bool)] = OOD
    return target


def segmentation_of(annotation: Mapping[str, Any]) -> Any:
    """Return the segmentation of an annotation; where it is empty the polygon of its ``bbox``, if that is a box."""
    bbox: Any = annotation.get("bbox")
    is_box = isinstance(bbox, list) and len(bbox) == 4 and all(type(value) in (int, float) for value in bbox)
    if annotation.get("segmentation") or not is_box:
        return annotation.get("segmentation")
    left, top, width, height = bbox
    return [[left, top, left + width, top, left + width, top + height, left, top + height]]


def segmentation_fault(segmentation: Any, height: int, width: int) -> str:
    """Return what is wrong with a segmentation for an image of this size; empty if nothing is.

    pycocotools, which draws it, checks nothing: coordinates or run lengths beyond the image make it allocate without
    bound, loop for ever or crash.
    """
    if isinstance(segmentation, list):
        for part in segmentation:
            if not isinstance(part, list) or len(part) < 6 or len(part) % 2:
                return "expected polygons of at least three points x, y"
            # annotators overshoot the border; one image size beyond it is no polygon of this image.
            # The comparison is false for NaN, too
            for name, bound, values in (("x", width, part[::2]), ("y", height, part[1::2])):
                if not all(type(value) in (int, float) and -bound <= value <= 2 * bound for value in values):
                    return f"{name} coordinates far outside the image, {width}x{height} px"
        if (outline := sum(map(_outline, segmentation))) > LONGEST_OUTLINE:
            return f"an outline of {outline:.0f} px, expected at most {LONGEST_OUTLINE}"
        return "" if segmentation else "no polygon"
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        return "expected polygons, or run lengths with counts and size"
    if segmentation.get("size") != [height, width]:
        return f"run lengths of size {segmentation.get('size')}, the image's is {[height, width]}"
    counts = segmentation["counts"]
    lengths = decompress(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not all(type(n) is int and n >= 0 for n in lengths):
        return "run lengths that are no whole numbers >= 0"
    if sum(lengths) != height * width:
        return f"run lengths of {sum(lengths)} px in all, the image has {height * width}"
    return ""


def _outline(polygon: Sequence[float]) -> float:
    """Return the length of a closed polygon x, y, x, y, ... in steps of a pixel each way [px]."""
    xs, ys = polygon[::2], polygon[1::2]
    return sum(max(abs(xs[k] - xs[k - 1]), abs(ys[k] - ys[k - 1])) for k in range(len(xs)))


def decompress(text: str) -> list[int] | None:
    """Read COCO's text form of run lengths; None if it is none.

    A number is written five bits at a time, low ones first, with bit 6 set while more follow, as the characters from
    ``0`` (code 48) on. From the fourth length on it is the difference to the length two before.
    """
    lengths: list[int] = []
    number = shift = 0
    for character in text:
        part = ord(character) - 48
        if not 0 <= part < 64 or shift > 30:  # lengths have 32 bits
            return None
        number |= (part & 0x1F) << shift
        shift += 5
        if part & 0x20:
            continue
        if part & 0x10:
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number = shift = 0
    return None if shift else lengths
