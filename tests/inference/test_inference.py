import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from meta_ood.config import InferParams
from meta_ood.data.context import Machine
from meta_ood.data.frames import Frame
from meta_ood.inference import average_logits, predict, processes, write_behind
from meta_ood.inference.tiles import _windows, tiled_outputs
from meta_ood.models import upsample

CPU = Machine("cpu", 2)


class Pointwise(nn.Module):
    """Logits that depend on single pixels: linear in the image, at stride 1."""

    align_corners = True
    output_stride = 1

    def forward(self, image: Tensor) -> Tensor:
        return image * 5 - 1


class Strided(Pointwise):
    """Every fourth pixel, first and last included: exact for images that are linear in place."""

    output_stride = 4

    def __init__(self, align_corners: bool) -> None:
        super().__init__()
        self.align_corners = align_corners

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        size = (-(-height // 4), -(-width // 4))
        if self.align_corners:
            return nn.functional.interpolate(image, size, mode="bilinear", align_corners=True)
        return nn.functional.avg_pool2d(image, 4)


def frames_of(folder: Path, sizes) -> list[Frame]:
    frames = []
    for number, (height, width) in enumerate(sizes):
        rng = np.random.default_rng(number)
        frame = Frame(f"f{number}", folder / f"{number}.png", "", folder / f"{number}_t.png", f"s{number % 2}")
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(frame.image)
        Image.fromarray(np.full((height, width), number, np.uint8)).save(frame.target)
        frames.append(frame)
    return frames


def test_predictions_come_in_order_whatever_the_sizes(tmp_path):
    sizes = [(8, 12)] * 3 + [(10, 12)] * 2 + [(8, 12)] * 6
    frames = frames_of(tmp_path, sizes)
    found = list(predict(Pointwise().train(), frames, InferParams(batch_size=4), CPU))
    assert [p.image_id for p in found] == [f.image_id for f in frames]
    for number, prediction in enumerate(found):
        image = np.asarray(Image.open(frames[number].image)).transpose(2, 0, 1)
        np.testing.assert_allclose(prediction.logits, image / 255 * 5 - 1, rtol=1e-5, atol=1e-5)
        assert prediction.logits.dtype == np.float32
        assert prediction.size == sizes[number]
        assert prediction.scene == f"s{number % 2}"
        assert (prediction.target == number).all()
        assert prediction.align_corners


def test_batching_changes_nothing(tmp_path):
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, 3, padding=1)
    frames = frames_of(tmp_path, [(8, 12)] * 5)
    one, four = (list(predict(network, frames, InferParams(batch_size=size), CPU)) for size in (1, 4))
    for a, b in zip(one, four, strict=True):
        np.testing.assert_allclose(a.logits, b.logits, rtol=1e-5, atol=1e-6)


def test_flip_averages_both_views():
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, 3, padding=1)
    images = torch.randint(0, 256, (2, 3, 9, 13), dtype=torch.uint8)
    found = average_logits(network, images, InferParams(flip=True))
    plain = images / 255
    expected = (network(plain) + network(plain.flip(-1)).flip(-1)) / 2
    torch.testing.assert_close(found, expected.detach())


def ramp(height: int, width: int) -> Tensor:
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, rows + columns])[None] / 255


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("size", [(64, 96), (52, 100)])
def test_tiles_are_seamless_for_what_is_linear(align, size):
    pixels = ramp(*size)
    network = Strided(align)
    grid = (-(-size[0] // 4), -(-size[1] // 4))
    whole = network(pixels)
    (tiled,) = tiled_outputs(network, pixels, 40, grid)
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))  # windows end with a half cell
    torch.testing.assert_close(tiled[inner], whole[inner], rtol=1e-4, atol=1e-4 if align else 3e-3)


def test_tiles_are_used_only_for_large_images_and_cover_them():
    class Spy(Strided):
        def forward(self, image: Tensor) -> Tensor:
            seen.append(tuple(image.shape[2:]))
            return super().forward(image)

    seen: list[tuple[int, int]] = []
    images = (ramp(64, 96) * 255).to(torch.uint8)
    logits = average_logits(Spy(True), images, InferParams(tile=40))
    assert logits.shape == (1, 3, 16, 24)
    assert torch.isfinite(logits).all()
    assert set(seen) == {(40, 40)}
    seen.clear()
    average_logits(Spy(True), images, InferParams(tile=96))
    assert seen == [(64, 96)]


def test_scales_are_averaged_on_one_grid():
    images = (ramp(64, 96) * 255).to(torch.uint8)
    network = Strided(True)
    single = average_logits(network, images, InferParams())
    several = average_logits(network, images, InferParams(scales=(0.5, 1.0, 2.0), flip=True))
    assert several.shape == single.shape
    # A mean of what is linear in place stays so, but for the half pixel at the border.
    torch.testing.assert_close(several, single, rtol=0, atol=2e-2)
    only = average_logits(network, images, InferParams(scales=(0.5,)))
    assert only.shape == single.shape


@pytest.mark.parametrize("tile", [0, 24])
@pytest.mark.parametrize("frame", [(64, 96), (20, 30), (37, 81)])
def test_a_given_size_is_what_the_network_sees(frame, tile):
    class Spy(Strided):
        def forward(self, image: Tensor) -> Tensor:
            seen.append(tuple(image.shape[2:]))
            return super().forward(image)

    seen: list[tuple[int, int]] = []
    images = torch.randint(0, 256, (1, 3, *frame), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    params = InferParams(size=(32, 48), scales=(1.0, 0.5), flip=True, tile=tile)
    logits = average_logits(Spy(False), images, params)
    assert set(seen) == ({(24, 24), (16, 24)} if tile else {(32, 48), (16, 24)})
    assert logits.shape == (1, 3, 8, 12)
    # Pillow resizes bytes as an independent oracle; it rounds to whole grey values
    alone = average_logits(Pointwise(), images, InferParams(size=(32, 48)))
    resized = Image.fromarray(images[0].permute(1, 2, 0).numpy()).resize((48, 32), Image.Resampling.BILINEAR)
    expected = np.asarray(resized, np.float32).transpose(2, 0, 1) / 255 * 5 - 1
    np.testing.assert_allclose(alone[0], expected, rtol=0, atol=1.1 * 5 / 255)


def test_predictions_at_a_given_size_keep_the_size_of_the_frame(tmp_path):
    frames = frames_of(tmp_path, [(8, 12), (10, 30), (40, 6)])
    found = list(predict(Pointwise(), frames, InferParams(size=(16, 24), batch_size=2), CPU))
    assert [p.size for p in found] == [(8, 12), (10, 30), (40, 6)]
    assert {p.logits.shape for p in found} == {(3, 16, 24)}
    assert [p.target.shape for p in found] == [p.size for p in found]


def test_bfloat16_is_close():
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, 3, padding=1)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    exact = average_logits(network, images, InferParams())
    half = average_logits(network, images, InferParams(precision="bfloat16"))
    torch.testing.assert_close(half.float(), exact, rtol=0, atol=0.02)
    assert not torch.equal(half.float(), exact)


def test_upsampling_a_ramp_is_exact_where_corners_align():
    pixels = ramp(61, 93)
    torch.testing.assert_close(upsample(pixels[:, :, ::4, ::4], (61, 93), True), pixels)


def test_writing_behind_keeps_order_and_passes_errors_on():
    written: list[int] = []
    main = threading.get_ident()

    def write(item) -> None:
        assert threading.get_ident() != main
        written.append(item)

    assert list(write_behind(range(30), write, waiting=3)) == list(range(30))  # type: ignore[arg-type]
    assert written == list(range(30))

    def fail(item) -> None:
        if item == 5:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        list(write_behind(range(30), fail, waiting=3))  # type: ignore[arg-type]


def test_one_process_without_torchrun(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with processes() as found:
        assert found == (0, 1)


@pytest.mark.parametrize("size", [40, 64, 65, 100, 1001])
def test_windows_cover_an_axis_and_overlap_by_a_quarter(size):
    found = _windows(size, 64)
    assert (found[0][0], found[-1][1]) == (0, size)
    assert all(stop - start == min(size, 64) for start, stop in found)
    assert all(before[1] - after[0] >= 16 for before, after in pairwise(found))
