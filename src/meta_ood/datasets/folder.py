"""Any dataset that is "an image here, a label map there", described in params.yaml alone."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from meta_ood.data.labels import BINARY, CITYSCAPES, IGNORE, IN, NEUTRAL, OOD
from meta_ood.data.registry import known_names
from meta_ood.datasets.cityscapes import cityscapes
from meta_ood.datasets.reader import Layout, one_of

TABLES: dict[str, Mapping[int, int]] = {
    "binary": BINARY,
    "cityscapes_ids": cityscapes().labels,
    "cityscapes_train_ids": cityscapes(labels="train_ids").labels,
}
"""Option labels by name -> value in the label maps -> target value."""
_MEANINGS = {"in": IN, "ood": OOD, "ignore": IGNORE, "neutral": NEUTRAL}
_MEANINGS |= {name: train_id for train_id, name in enumerate(CITYSCAPES.names)}


def folder(
    *,
    images: str,
    targets: str = "",
    labels: str | Mapping[int, str] = "binary",
    scene: str | None = None,
    only: str = "",
) -> Layout:
    """Describe images below a root, their label maps, and what the values of these mean.

    Args:
        images: Path of an image below the root, such as ``photos/{scene}/{id}.jpg``: ``{split}`` is the split, other
            names in braces stand for any text without a slash, ``*`` too. ``{id}`` names the frame.
        targets: Path of its label map in the same names; empty for ordinary frames without labels, which count as
            in-distribution everywhere.
        labels: A key of :data:`TABLES`, or value -> ``in``, ``ood``, ``ignore``, ``neutral`` or a class of Cityscapes.
        scene: Regular expression: the part of the id that it matches is the scene. Without it ``{scene}`` of `images`
            is, or else each frame is a scene of its own.
        only: Regular expression: frames whose id does not begin with a match of it are left out. It divides a folder.

    Raises:
        ValueError: If an option is wrong; it is named.
    """
    # 1. the templates, whose names must be known for both sides
    fields = _fields("images", images)
    if "id" not in fields:
        raise ValueError(f"folder reader: option images: {images!r} has no {{id}}, the name of a frame")
    if targets and (unknown := _fields("targets", targets) - fields - {"split"}):
        names = ", ".join(f"{{{name}}}" for name in sorted(unknown))
        raise ValueError(f"folder reader: option targets: {names} of {targets!r} does not occur in images, {images!r}")
    # 2. the scene, and which frames there are
    for option, expression in (("scene", scene), ("only", only)):
        try:
            re.compile("" if expression is None else expression)
        except (re.error, TypeError) as error:
            raise ValueError(f"folder reader: option {option}: {expression!r} is no pattern: {error}") from None
    pattern = r"^(?P<scene>.+)$" if scene is None else f"(?P<scene>{scene})"
    if scene is None and "scene" in fields:
        pattern = "(?!)"  # matches nothing: the template says it
    return Layout(
        name="folder", images=images, targets=targets, labels=_table(labels), splits={}, scene=pattern, only={"*": only}
    )


def _fields(option: str, template: str) -> set[str]:
    """Return the names in braces of a template."""
    place = PurePosixPath(str(template))
    rest = re.sub(r"\{[A-Za-z_]\w*\}", "", str(template))
    is_text = isinstance(template, str) and template
    if not is_text or place.is_absolute() or ".." in place.parts or "**" in rest or set(rest) & set("{}"):
        expected = "a path below the root such as 'photos/{scene}/{id}.jpg'"
        raise ValueError(f"folder reader: option {option}: expected {expected}, got {template!r}")
    return set(re.findall(r"\{(\w+)\}", template))


def _table(labels: str | Mapping[int, str]) -> Mapping[int, int]:
    """Return value in the label maps -> target value."""
    if isinstance(labels, str):
        return one_of("folder", "labels", labels, TABLES)
    if not isinstance(labels, Mapping) or not labels:
        raise ValueError(f"folder reader: option labels: expected a table value: meaning, got {labels!r}")
    table = {}
    for value, meaning in labels.items():
        if not str(value).isdecimal() or int(value) > 255:
            raise ValueError(
                f"folder reader: option labels: got the value {value!r}, expected an integer from 0 to 255"
            )
        if meaning not in _MEANINGS:
            known = known_names(meaning, _MEANINGS)
            raise ValueError(f"folder reader: option labels: {value}: {meaning!r} is unknown; {known}")
        table[int(value)] = _MEANINGS[meaning]
    return table
