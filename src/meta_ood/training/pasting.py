"""Objects pasted into crops of street scenes, unknown and known ones alike.

If only unknown objects were pasted, a network would learn to find what was pasted. Known things that are pasted in the
same way, with their labels, take that evidence away.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFilter import GaussianBlur
from torch import Tensor

from meta_ood.config import TrainParams
from meta_ood.data.frames import Frame
from meta_ood.data.labels import CITYSCAPES, IGNORE, IN, OOD, LabelMap
from meta_ood.inference.batches import Sample
from meta_ood.training.cutouts import CutOut, cut_known, cut_proxy

# (image (3, H, W) uint8, target (H, W) uint8, generator): pastes into both, in place
Pasting = Callable[[Tensor, Tensor, np.random.Generator], None]

_ROAD, _SIDEWALK = (CITYSCAPES.names.index(name) for name in ("road", "sidewalk"))
# a frame without labels is taken for road below this part of its height: a camera in a car looks ahead
_ASSUMED_ROAD = 0.55
_BORDER = 3  # [px] around a pasted object, into which its blurred edge reaches


@dataclass(frozen=True)
class OnRoad:
    """Which objects are pasted into which crops (``train.proxy_style: on_road``)."""

    proxies: range  # places in the dataset of those of which a second and third object are drawn
    known: Sequence[Sequence[CutOut]] = ()  # cut-outs by kind of thing; each kind is as likely as another
    known_objects: float = 0.0  # probability that a crop with unknown objects gets known ones
    known_objects_clean: float = 0.0  # the same of a crop without unknown objects, if its frame has labels

    @classmethod
    def of(
        cls, settings: TrainParams, streets: Sequence[tuple[Frame, float]], proxies: range, *, seed: int, workers: int
    ) -> Self | None:
        """Return the pasting that a training asks for; None if its proxies have another style.

        `streets` are its labelled frames, each with the factor by which it is enlarged, and photos of other places
        with the factor 0: known objects are cut out of them if they are wanted; see :func:`cut_known`.
        """
        if settings.proxy_style != "on_road":
            return None
        shares = (settings.known_objects, settings.known_objects_clean)
        return cls(proxies, cut_known(streets, seed=seed, workers=workers) if any(shares) else (), *shares)

    def choose(self, pasted: int, generator: np.random.Generator) -> list[int]:
        """Return the indices of the proxies for a crop: `pasted` and up to two others; none if it is -1."""
        if pasted < 0:
            return []
        further = int(generator.random() < 1 / 2) + int(generator.random() < 1 / 4)
        return [pasted, *generator.choice(self.proxies, further).tolist()]

    def prepare(self, target: Tensor, proxies: Sequence[Sample], scale: float = 1.0) -> tuple[Tensor, Pasting]:
        """Return the target to cut a crop's target out of, and what pastes into the crop.

        It is the frame's own; but where a frame without train ids gets objects, the IN pixels of its lower part are
        road to place them on, which the pasting turns into IN again. `scale` is the factor that enlarges the frame.
        """
        labelled = bool((target.numpy() < len(CITYSCAPES.names)).any())
        if proxies and not labelled:
            target = target.clone()
            lower = target[round(_ASSUMED_ROAD * len(target)) :]
            lower[lower == IN] = _ROAD
        return target, partial(self._paste_all, proxies=proxies, labelled=labelled, scale=scale)

    def _paste_all(
        self,
        image: Tensor,
        target: Tensor,
        generator: np.random.Generator,
        proxies: Sequence[Sample],
        labelled: bool,
        scale: float,
    ) -> None:
        picture, labels = image.permute(1, 2, 0).numpy(), target.numpy()  # they share the tensors' memory
        horizon = horizon_of(labels)
        things = [thing for proxy in proxies if (thing := cut_proxy(proxy, generator)) is not None]
        share = self.known_objects if proxies else self.known_objects_clean if labelled else 0.0
        if self.known and generator.random() < share:
            for _ in range(2 + generator.poisson(1.5)):
                kind = self.known[int(generator.integers(len(self.known)))]
                thing = kind[int(generator.integers(len(kind)))]
                # enlarged frames are those of cameras that see less at once: things are larger, less surely so
                larger = generator.uniform(0.8, 1.6) if scale > 1 else 1.0
                things.append(thing._replace(height=larger * thing.height))
        for thing in things:
            paste_on_road(picture, labels, thing, horizon, generator)
        if not labelled:
            labels[labels == _ROAD] = IN


def horizon_of(target: LabelMap) -> float:
    """Return the row of the horizon: 3 % of the height above the first row with road; 35 % of it if there is none."""
    rows = np.flatnonzero((target == _ROAD).any(1))
    return (rows[0] / len(target) - 0.03 if len(rows) else 0.35) * len(target)


def paste_on_road(
    image: npt.NDArray[np.uint8], target: LabelMap, thing: CutOut, horizon: float, generator: np.random.Generator
) -> None:
    """Paste an object into a picture, in place.

    Its foot is on the road, or on road and sidewalk; in 10 % of the cases (known things: 5 %), and where there is
    neither, it is anywhere in the lower three quarters. An unknown object is [0.12, 1.1] times as high as its foot is
    below the horizon, so that it is larger when nearer, a known one of another place [0.6, 1.4] times, since persons
    are as high as a camera or higher; a known one of a street [0.6, 1.3] times its own height. No object is lower than
    10 px, higher than 75 % or wider than 60 % of the picture. It may be flipped, blurred a little, lose up to 35 % of
    its contrast, and its mean colour moves up to 60 % of the way to that of its surroundings.

    Args:
        image, target: ``(H, W, 3) uint8`` and ``(H, W) uint8``. The object's pixels get its labels; pixels at its edge
            that are blended with the background get IGNORE.
        thing: The object; it is unknown if its labels are OOD.
        horizon: Row of the horizon.
        generator: Source of all draws.
    """
    unknown = bool((thing.target == OOD).any())
    height, width = target.shape
    # 1. foot and size
    foot, centre = _foot(target, 0.1 if unknown else 0.05, generator)
    rows, columns = thing.target.shape
    if thing.height:
        wanted = thing.height * generator.uniform(0.6, 1.3)
    else:
        wanted = max(foot - horizon, 12) * generator.uniform(*((0.12, 1.1) if unknown else (0.6, 1.4)))
    scale = min(min(max(wanted, 10), 0.75 * height) / rows, 0.6 * width / columns)
    size = (max(4, round(scale * columns)), max(4, round(scale * rows)))
    # 2. the object at this size, flipped or not, with a border for its soft edge
    flip = generator.random() < 0.5

    def fitted(part: npt.NDArray[np.uint8], how: Image.Resampling) -> npt.NDArray[np.uint8]:
        return np.asarray(Image.fromarray(part[:, ::-1] if flip else part).resize(size, how))

    opaque = (thing.target != IGNORE).astype(np.uint8) * np.uint8(255)
    around = (_BORDER, _BORDER)
    colours = np.pad(fitted(thing.image, Image.Resampling.BILINEAR), (around, around, (0, 0)), mode="edge")
    alpha = np.pad(fitted(opaque, Image.Resampling.BILINEAR), _BORDER)
    labels = np.pad(fitted(thing.target, Image.Resampling.NEAREST), _BORDER, constant_values=IGNORE)
    # 3. what of it lies within the picture
    top, left = foot + 1 - size[1] - _BORDER, centre - size[0] // 2 - _BORDER
    place = (slice(max(top, 0), min(top + len(alpha), height)), slice(max(left, 0), min(left + alpha.shape[1], width)))
    own = tuple(slice(part.start - start, part.stop - start) for part, start in zip(place, (top, left), strict=True))
    colours, alpha, labels = colours[own], alpha[own], labels[own]
    # 4. its colours: the mean on the way to that of the place, less contrast, a little blur
    ground = image[place].astype(np.float32)
    inside = alpha > 127
    if not inside.any():
        return
    mean = colours[inside].mean(0, dtype=np.float32)
    shift, contrast = generator.uniform(0, 0.6), 1 - generator.uniform(0, 0.35)
    moved = (colours - mean) * np.float32(contrast) + mean + np.float32(shift) * (ground.mean((0, 1)) - mean)
    colours = _blur(np.clip(moved, 0, 255).astype(np.uint8), generator.uniform(0, 1.2))
    # 5. blended by a blurred alpha; what is blended visibly is neither the one nor the other
    soft = _blur(alpha, generator.uniform(0.3, 1.3)).astype(np.float32)[..., None] / np.float32(255)
    image[place] = np.rint(ground + soft * (colours - ground)).astype(np.uint8)
    ring = (soft[..., 0] > (0.1 if unknown else 0.3)) & ~inside
    target[place] = np.where(inside, labels, np.where(ring, np.uint8(IGNORE), target[place]))


def _foot(target: LabelMap, anywhere: float, generator: np.random.Generator) -> tuple[int, int]:
    """Draw row and column of an object's foot."""
    height, width = target.shape
    ground = target == _ROAD
    if generator.random() < 0.3 or not ground.any():
        ground |= target == _SIDEWALK
    places = np.flatnonzero(ground)
    if generator.random() < anywhere or not len(places):
        return int(generator.integers(height // 4, height)), int(generator.integers(width))
    row, column = divmod(int(generator.choice(places)), width)
    return row, column


def _blur(pixels: npt.NDArray[np.uint8], sigma: float) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels).filter(GaussianBlur(sigma)))
