"""Atomic files, CSV tables, hashes, locks, and folders of unfinished work.

Every file that this package writes goes through :func:`replacing`. A reader therefore never sees half a file, a killed
writer leaves the old contents, and any number of writers can work in one folder, also from several hosts or containers.
"""

import csv
import fcntl
import glob
import hashlib
import io
import json
import logging
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ROOT = Path(".meta_ood/resume")  # of all resume folders; relative to the repository's root
logger = logging.getLogger(__name__)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file in the same folder; it takes the place of `path` if all goes well.

    The folder is made. The writer holds a lock on the temporary file, which ends with its process however that ends, so
    that the next writer of the same file can remove what a killed one left without touching what another still writes.

    Raises:
        OSError: If the file cannot be written (no space, no permission); `path` is named and unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # random: process numbers would repeat in other containers and on other hosts that share the folder
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with _created(temporary):
            yield temporary
            temporary.replace(path)  # atomic: within one folder, hence within one file system
    except OSError as error:
        # the reader of the message knows the file, not its temporary name
        if error.filename in (None, str(temporary), temporary):
            raise type(error)(error.errno, error.strerror or str(error), str(path)) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    # remove temporary files of writers that were killed
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(OSError), left.open("rb+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


@contextmanager
def _created(path: Path) -> Iterator[None]:
    """Create `path`, which must not exist, and hold a lock on it."""
    while True:
        with path.open("xb") as file:
            with suppress(OSError):  # a file system without locks: then nothing is ever removed
                fcntl.flock(file, fcntl.LOCK_EX)
            # another writer may have removed it between creation and lock: then create it again
            if os.fstat(file.fileno()).st_nlink:
                yield
                return


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically, see :func:`replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file with Unix line ends atomically, see :func:`replacing`."""
    write_bytes(path, text.encode())


def write_json(path: Path, values: Any) -> None:
    """Write values as JSON atomically; NaN and infinity, which JSON cannot hold, are a ValueError."""
    write_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file atomically: a header and one line per row."""
    write_text(path, csv_text(header, rows))


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    r"""Return CSV text; what a spreadsheet would take for a formula gets an apostrophe, which :func:`read_csv` removes.

    Examples:
        >>> csv_text(["a", "b", "c", "d"], [["=1+2", "-0.5", "-x", "x,y"]])
        'a,b,c,d\n\'=1+2,-0.5,\'-x,"x,y"\n'
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_no_formula(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def _no_formula(cell: object) -> object:
    if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r", "'")):
        try:
            float(cell)
        except ValueError:
            return f"'{cell}"
    return cell


@contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into a ValueError ``"path: what: ..."``.

    Libraries raise nearly anything on such files: OSError, EOFError, KeyError, SyntaxError, struct.error. A file that
    is not there is a FileNotFoundError.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        yield
    except Exception as error:
        reason = str(error).removeprefix(f"{path}: ")  # our own errors name the file already
        raise ValueError(f"{path}: {what}: {reason}") from error


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file; another encoding is a ValueError that names the file."""
    return decoded(path.read_bytes(), str(path))


def decoded(content: bytes, name: str) -> str:
    """Return the content of a UTF-8 file as text, with Unix line ends, as :func:`read_text`; `name` is for messages."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: not a text file in UTF-8: {error}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path) -> Any:
    """Return the value of a JSON file; what is no UTF-8, no JSON or too deep is a ValueError that names the file."""

    def refuse(name: str) -> float:  # NaN and infinity, which JSON does not have
        raise ValueError(f"{name} is not a number")

    text = read_text(path)
    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a JSON file: {error}") from None


def read_csv(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, str]]:
    """Return one dict per line of a UTF-8 file with a header, by column name.

    The header has all of `columns` in any order, and perhaps some of `optional`; missing ones read as empty texts.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such table; file and line are named.
    """
    return csv_rows(read_text(path), str(path), columns, optional)


def csv_rows(text: str, name: str, columns: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, str]]:
    """Return the lines of CSV text as :func:`read_csv`; `name` is for messages."""
    try:
        lines = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise ValueError(f"{name}: not a CSV file: {error}") from None
    header = lines[0] if lines else []
    unexpected = set(header) - {*columns, *optional}
    if set(columns) - set(header) or unexpected or len(set(header)) != len(header):
        expected = ",".join([*columns, *(f"[{column}]" for column in optional)])
        raise ValueError(f"{name}: expected the header {expected}, got {','.join(header)!r}")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise ValueError(f"{name}, line {number}: expected {len(header)} columns, got {len(line)}")
        cells = [cell.removeprefix("'") for cell in line]  # see csv_text
        rows.append(dict.fromkeys(optional, "") | dict(zip(header, cells, strict=True)))
    return rows


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Return the hash of a file's bytes as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def resume_folder(parts: Iterable[object], files: Iterable[Path] = (), many: Iterable[Path] = ()) -> Path:
    """Return the folder in which a command keeps finished parts of its work until all is done.

    This is the only way in which commands go on after a kill: training keeps its last state there, ``infer`` one file
    per frame, ``segments`` one table per batch. A command removes the folder once its output is in place.

    The name of the folder is a hash of what decides the result, so that work for other parameters or inputs is never
    taken up: of the ``repr`` of `parts`, of the contents of `files`, and of the names, sizes and times of `many`.
    """
    digest = hashlib.sha256(repr(tuple(parts)).encode())
    for path in files:
        digest.update(bytes.fromhex(file_hash(path)))
    for path in many:
        status = path.stat()
        digest.update(repr((path.name, status.st_size, status.st_mtime_ns)).encode())
    return ROOT / digest.hexdigest()[:16]


def replace_folder(finished: Path, target: Path) -> None:
    """Move a folder to `target`; if its old contents cannot be removed, that is an OSError and nothing is moved."""
    if target.is_symlink():
        target.unlink()  # the folder behind the link does not belong to this command
    elif target.exists():
        shutil.rmtree(target)
    # a target that was still there would receive the folder as its child
    if target.exists():
        raise FileExistsError(f"{target} was written by another process: stop it, then run again")
    target.parent.mkdir(parents=True, exist_ok=True)
    # to another file system this is a copy: beside the target, so that a cut one is never taken for it
    beside = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    try:
        shutil.move(finished, beside)
        beside.rename(target)
    except shutil.Error as error:
        raise OSError(f"{target}: {error.args[0][0][-1]}") from error  # the first of its files that failed
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def running(what: str, lock: Path) -> Iterator[None]:
    """Hold the file `lock` while `what` runs; if another process does, a BlockingIOError names it and since when."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("a+", encoding="utf-8")
    except OSError as error:
        # no space or no permission: the command may still succeed, two at once may collide
        logger.warning("%s runs without a lock: %s", what, error)
        yield
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read() or "a short time ago"
            raise BlockingIOError(f"{what} is running since {owner}: wait for it or stop it") from None
        except OSError:
            pass  # a file system without locks
        with suppress(OSError):  # a full disk: then the owner is not named
            file.truncate(0)
            owner = f"{time.strftime('%Y-%m-%d %H:%M:%S')} by process {os.getpid()} on {socket.gethostname()}"
            os.write(file.fileno(), owner.encode())  # not kept in a buffer, which would fail again at the end
        yield
