"""Files of frames (images, tar archives, videos) on this machine or behind an address that fsspec knows.

fsspec and PyAV are imported where an address or a video asks for them.
"""

import glob
import hashlib
import os
import re
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from meta_ood.data.images import MAX_PIXELS, RgbImage, decode_image
from meta_ood.detector.images import SUFFIXES as IMAGES

TARS = (".tar",)  # not compressed: a frame is read from its place, without what lies before it
VIDEOS = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".ts")
_PAUSES = (1, 4, 16)  # [s] before a store that does not answer is asked again, after what its client does by itself
_NUMBER = re.compile("[0-9]+")


def suffix(address: str) -> str:
    """Return the ending of an address in lower case, ``.jpg`` say; of one without, something that is no ending."""
    return f".{address.rpartition('.')[2].lower()}"  # a tenth of the time of a Path's


def is_remote(address: str) -> bool:
    """Return whether an address, such as ``s3://bucket/drive``, is not a path of this machine."""
    return "://" in address


def in_order(names: Iterable[str]) -> list[str]:
    """Return names sorted with numbers as numbers: ``2.png`` before ``10.png``; equal ones (``1``, ``01``) as texts."""
    return sorted(sorted(names), key=lambda name: _NUMBER.sub(lambda number: number[0].zfill(20), name))


def open_file(address: str) -> IO[bytes]:
    """Open a file for reading; a missing one is a FileNotFoundError."""
    if not is_remote(address):
        return Path(address).open("rb")
    files, path = _file_system(address)
    with _answered(address):
        file: IO[bytes] = files.open(path, "rb")
    return file


def matches(pattern: str) -> list[str]:
    """Return the files and folders that a pattern (``*``, ``?``, ``[...]``, ``**``) matches, :func:`in_order`."""
    if not is_remote(pattern):
        return in_order(glob.glob(pattern, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    files, path = _file_system(pattern)
    with _answered(pattern):
        return in_order(files.unstrip_protocol(found) for found in files.glob(path))


def files_below(folder: str) -> Iterator[str]:
    """Yield all files in a folder and its subfolders, each :func:`in_order`; a FileNotFoundError if it is none."""
    if is_remote(folder):
        files, path = _file_system(folder)
        with _answered(folder):
            if not files.isdir(path):
                raise FileNotFoundError(f"{folder}: no such folder")
            found = files.find(path)
        yield from map(files.unstrip_protocol, in_order(found))
        return
    if not Path(folder).is_dir():
        if Path(folder).exists():
            endings = ", ".join((*IMAGES, *TARS, *VIDEOS))
            raise FileNotFoundError(f"{folder}: expected a folder or one of {endings}; a manifest is given alone")
        raise FileNotFoundError(f"{folder}: no such file or folder")

    def refuse(error: OSError) -> None:  # a folder without rights, which would be left out without a word
        raise error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = in_order(folders)
        yield from (os.path.join(parent, name) for name in in_order(names))  # noqa: PTH118 - a million of them: 5 times faster


def _file_system(address: str) -> tuple[Any, str]:
    """Return fsspec's file system of an address and the path in it."""
    from fsspec.core import url_to_fs

    try:
        files, path = url_to_fs(address)
    except ImportError as error:  # the package of this kind of address; fsspec's message names it
        raise ValueError(f"{address}: {error}") from error
    return files, path


@contextmanager
def _answered(address: str) -> Iterator[None]:
    """Make one kind of all errors by which the clients of stores say that they got no answer."""
    try:
        yield
    except FileNotFoundError as error:
        # that of HTTP makes a missing file of everything; what it made it of is the cause
        cause = error.__cause__
        is_of_client = type(cause).__module__.partition(".")[0] == "aiohttp" and getattr(cause, "status", 500) >= 500
        if is_of_client or isinstance(cause, TimeoutError):
            raise ConnectionError(f"{address}: {type(cause).__name__}: {cause}") from error
        raise
    except (OSError, ValueError, ImportError):
        raise
    except Exception as error:
        raise ConnectionError(f"{address}: {type(error).__name__}: {error}") from error


def is_gone(address: str) -> bool:
    """Return whether the store of an address does not answer any more; to be asked after an error."""
    if not is_remote(address):
        return False
    store, path = _file_system(address)
    store.invalidate_cache()
    try:
        with _answered(address):
            store.info(path)
    except (FileNotFoundError, PermissionError):
        return False
    except (OSError, ValueError):
        return True
    return False


class Part(NamedTuple):
    """A frame within a tar archive or a video."""

    name: str
    position: int  # byte of the member's header in the archive, or time stamp of the frame in the video's unit
    time: float | None = None  # [s] on the video's own clock


def tar_images(address: str) -> Iterator[Part]:
    """Yield the images of a tar archive in its order; a ValueError, after those before it, where it is damaged."""
    try:
        with open_file(address) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                if member.isfile() and suffix(member.name) in IMAGES:
                    yield Part(member.name, member.offset)
    except (FileNotFoundError, PermissionError, ImportError):
        raise
    except Exception as error:  # of tarfile or a remote store; they share no base class
        raise ValueError(f"{address}: not a tar archive, or damaged: {error}") from error


def video_frames(address: str) -> Iterator[Part]:
    """Yield the frames of the first video stream in the order of their times, without decoding them.

    ValueError if it is no video or damaged; after the frames, if it ends long before the time that its header states.
    """
    try:
        with closing(_Video(address)) as video:
            times = video.times()
            unit, stated = float(video.stream.time_base), video.stated_seconds
    except (FileNotFoundError, PermissionError, ImportError):
        raise
    except Exception as error:  # FFmpeg's errors; no video stream; frames without any time
        raise ValueError(f"{address}: not a video, or damaged: {error}") from error
    yield from (Part(f"{number:06d}", time, time * unit) for number, time in enumerate(times))
    seen = (times[-1] - times[0]) * unit if times else 0.0
    if stated > 1 + 1.1 * seen:  # sound may be a little longer than the pictures
        raise ValueError(f"{address}: damaged: its frames end after {seen:.1f} s, its header says {stated:.1f} s")


class _Video:
    """An open video file; FFmpeg's errors are of many types."""

    def __init__(self, address: str) -> None:
        import av

        with ExitStack() as stack:
            file = stack.enter_context(open_file(address))
            self._container = stack.enter_context(av.open(file))
            self.stream = self._container.streams.video[0]
            self.close = stack.pop_all().close
        self._frames: Iterator[Any] = iter(())
        self._last: int | None = None  # time stamp of the frame decoded last; None: seek first

    @property
    def stated_seconds(self) -> float:
        """How long it is by its header; 0 if that does not say."""
        if self.stream.duration:
            return float(self.stream.duration * self.stream.time_base)
        return (self._container.duration or 0) / 1e6  # [µs]

    def times(self) -> list[int]:
        """Return the time stamps of all frames, ascending."""
        # packets stand in the order of decoding; what an editor cut away is marked as discarded
        packets = (packet for packet in self._container.demux(self.stream) if packet.size and not packet.is_discard)
        return sorted(packet.dts if packet.pts is None else packet.pts for packet in packets)

    def read(self, time: int) -> RgbImage:
        """Return the frame with this time stamp; forwards, decoding goes on where it is."""
        if self._last is None or time <= self._last:
            self._container.seek(time, stream=self.stream)  # to the key frame at or before it
            self._frames = self._container.decode(self.stream)
        self._last = None  # an error while decoding ends the iterator
        for frame in self._frames:
            if frame.pts is None or frame.pts < time:
                continue
            self._last = frame.pts
            if frame.pts > time or frame.width * frame.height > MAX_PIXELS:
                break
            pixels = frame.to_ndarray(format="rgb24")
            upright: RgbImage = np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))
            return upright
        raise ValueError(f"no frame with time stamp {time} of at most {MAX_PIXELS} pixels")


class Reader:
    """Reads frames. The last archive or video stays open, since the next frame is mostly in the same one."""

    def __init__(self) -> None:
        self._address = ""
        self._opened: Any = None

    def __call__(self, address: str, position: int | None) -> tuple[RgbImage, str]:
        """Return ``(H, W, 3) uint8`` RGB, upright, and the SHA-256 of the image file, or of a video frame's pixels.

        Args:
            address: Of an image, a tar archive or a video.
            position: See :class:`Part`; None for an image.

        Raises:
            OSError, ValueError: The frame is missing or damaged; the address is named.
            ConnectionError: Its store does not answer any more, for half a minute: this says nothing of the frame.
        """
        for pause in (*_PAUSES, None):
            try:
                return self._read(address, position)
            except (FileNotFoundError, PermissionError, ImportError):
                raise
            except Exception as error:  # of tarfile, FFmpeg or a remote store; they share no base class
                told = f"{address}: {type(error).__name__}: {error}"
                if not is_gone(address):
                    if isinstance(error, ValueError) and address in str(error):
                        raise
                    raise ValueError(told) from error
                self.close()  # what was open leads nowhere
                if pause is None:
                    raise ConnectionError(f"no answer any more: {told}") from error
                time.sleep(pause)
        raise AssertionError("the last pause is None")

    def _read(self, address: str, position: int | None) -> tuple[RgbImage, str]:
        if position is None:
            with open_file(address) as file:
                content = file.read()
        elif suffix(address) in VIDEOS:
            pixels = self._open(address, _Video).read(position)
            return pixels, hashlib.sha256(pixels.tobytes()).hexdigest()
        else:
            content = _member(self._open(address, open_file), position)
        return decode_image(content, address), hashlib.sha256(content).hexdigest()

    def _open(self, address: str, how: Callable[[str], Any]) -> Any:
        if address != self._address:
            self.close()
            self._address, self._opened = address, how(address)
        return self._opened

    def close(self) -> None:
        """Close the last archive or video."""
        if self._opened is not None:
            self._opened.close()
        self._address, self._opened = "", None


def _member(file: IO[bytes], position: int) -> bytes:
    """Return the contents of the member of a tar archive whose header begins at a byte."""
    file.seek(position)
    archive = tarfile.TarFile(fileobj=file)  # begins where the file stands
    member = archive.next()
    content = archive.extractfile(member) if member else None
    if content is None:
        raise ValueError(f"no file at byte {position}")
    return content.read()
