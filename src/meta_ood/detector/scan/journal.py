"""The journal of a part: the rows of its finished frames, until the files of the part are in place.

So a kill costs the frame in hand only. Each process appends to a file of its own: one that was given up and yet lives,
on a node that could not be reached say, does no harm, since the rows of a frame are the same whoever made them.
"""

import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

Record = dict[str, Any]
"""Of one frame: its rows by :data:`meta_ood.detector.scan.tables.KINDS`, and ``features``, float64 in base64."""


def read(folder: Path) -> dict[int, Record]:
    """Return the records in the files of a folder by index of their frame, without those that a kill has cut."""
    records: dict[int, Record] = {}
    for path in folder.glob("*.jsonl"):
        for line in path.read_bytes().split(b"\n"):
            with suppress(ValueError, LookupError):
                record = json.loads(line)
                records[record["frames"][0]["index"]] = record
    return records


@contextmanager
def appending(folder: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function that appends a record; it is safe from a kill of the process as soon as this returns.

    OSError if it cannot be written (no space, no permission); the file is named.
    """
    path = folder / f"{secrets.token_hex(8)}.jsonl"

    def append(record: Mapping[str, Any]) -> None:
        rest = json.dumps(record).encode() + b"\n"  # JSON keeps every bit of a float
        try:
            while rest:  # past any buffer of this process
                rest = rest[file.write(rest) :]
        except OSError as error:
            raise type(error)(error.errno, error.strerror, str(path)) from error

    folder.mkdir(parents=True, exist_ok=True)
    with path.open("xb", buffering=0) as file:
        yield append


def remove(folders: Iterable[Path]) -> None:
    """Remove the journals of finished parts."""
    for folder in folders:
        for path in folder.glob("*.jsonl"):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # another process that works at the same part has just begun a file
            folder.rmdir()
