"""The running package as a wheel, so that a registered model takes its code along.

The wheel holds the files of the running package, kernels included: neither sources nor a compiler are needed, and it is
for the same kind of machine and Python. The local part of its version is a digest of these files, as in
``0.2.0+c1f0a2b3c4d5``: no index of packages can offer it, and MLflow, which names an environment after its
requirements, never takes that of other code for it.
"""

import base64
import hashlib
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import meta_ood

PACKAGE = Path(meta_ood.__file__).parent
DISTRIBUTION = "meta-ood"
_NOT_RUN = ("__pycache__", ".pyx", ".h", ".c")  # folders and endings of what no import needs
_NOT_FOLLOWED = ("torch",)  # what it needs depends on the build: libraries of CUDA, or none


def running_version() -> str:
    """Return the version of the running package, with the digest of its files."""
    return _version(_contents())


def _contents() -> dict[str, bytes]:
    """Return the running package's files by their path below site-packages."""
    return {
        path.relative_to(PACKAGE.parent).as_posix(): path.read_bytes()
        for path in sorted(PACKAGE.rglob("*"))
        if path.is_file() and path.suffix not in _NOT_RUN and path.parent.name not in _NOT_RUN
    }


def _version(contents: dict[str, bytes]) -> str:
    digest = hashlib.sha256(b"".join(name.encode() + hashlib.sha256(c).digest() for name, c in contents.items()))
    return f"{meta_ood.__version__}+c{digest.hexdigest()[:12]}"


def write_wheel(folder: Path) -> str:
    """Write the wheel into `folder`; return the requirement that only this wheel fulfils. Same code, same bytes."""
    # 1. the files, and the version that names them
    contents = _contents()
    version = _version(contents)
    # 2. what the installed distribution says of itself, with this version
    own = metadata.distribution(DISTRIBUTION)
    needed = "".join(f"Requires-Dist: {text}\n" for text in own.requires or ())
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    tag = f"{python}-{python}-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"
    name = f"meta_ood-{version}"
    about = {
        "METADATA": f"Metadata-Version: 2.1\nName: {DISTRIBUTION}\nVersion: {version}\n{needed}",
        "WHEEL": f"Wheel-Version: 1.0\nGenerator: meta-ood\nRoot-Is-Purelib: false\nTag: {tag}\n",
        "entry_points.txt": own.read_text("entry_points.txt") or "",
    }
    contents |= {f"{name}.dist-info/{file}": text.encode() for file, text in about.items()}
    # 3. the list of all files with their hashes, without which no installer takes a wheel
    record = f"{name}.dist-info/RECORD"
    lines = [f"{file},sha256={_digits(content)},{len(content)}\n" for file, content in contents.items()]
    contents[record] = "".join([*lines, f"{record},,\n"]).encode()
    with zipfile.ZipFile(folder / f"{name}-{tag}.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in contents.items():
            entry = zipfile.ZipInfo(file)  # of 1980: no time of writing in the bytes
            entry.external_attr, entry.compress_type = 0o644 << 16, zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return f"{DISTRIBUTION}=={version}"


def installed_requirements() -> list[str]:
    """Return what the package needs, directly and indirectly, as ``name==version`` of what is installed here.

    The public version: a build for another device, such as ``2.11.0+cpu``, fulfils ``torch==2.11.0``.
    """
    pinned: dict[str, str] = {}
    queue = [DISTRIBUTION]
    for name in queue:
        for wanted in map(Requirement, metadata.requires(name) or ()):
            key = canonicalize_name(wanted.name)
            if key in pinned or (wanted.marker and not wanted.marker.evaluate({"extra": ""})):
                continue
            pinned[key] = Version(metadata.version(key)).public
            if key not in _NOT_FOLLOWED:
                queue.append(key)
    return [f"{name}=={version}" for name, version in sorted(pinned.items())]


def _digits(content: bytes) -> str:
    """Return a SHA-256 as the format of wheels writes it."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode("ascii")
