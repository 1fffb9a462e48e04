"""Archives that the datasets come in: sizes and checksums as the benchmarks publish them."""

from pathlib import Path

from meta_ood.data.files import file_hash
from meta_ood.datasets.checks.findings import Finding, find

# file name -> size [bytes] (0 = unknown), name and digits of the hash
ARCHIVES: dict[str, tuple[int, str, str]] = {
    "gtFine_trainvaltest.zip": (0, "md5", "4237c19de34c8a376e9ba46b495d6f66"),
    "leftImg8bit_trainvaltest.zip": (0, "md5", "0a6e97e94b616a514066c9e2adb0c97f"),
    "gtCoarse.zip": (37756896, "sha256", "53b6d3ab000f08b1fb59d70c1398eecc4d82a7baf4e9cf74fbf60d1858abe9ac"),
    "leftImg8bit.zip": (5802953400, "sha256", "307f66002023ab597d309963b94990f5b9a8e5735ee729c3292647a66e9f2b18"),
    "fishyscapes_lostandfound.zip": (729335, "sha256",
        "f0078e89f0a147060a0864feb90e8b523313a2723b1b764bce638dc425473094"),
    "fs_val_v1.zip": (4417983, "sha256", "47060202a0eb0af1273046a679956661dc47ff1479253bfc0bcbb7a980831211"),
    "fs_val_v2.zip": (4107857, "sha256", "bb11f288ae0347c42da09b9ea1a40d8df967a5091e4193b6f7014cbd97564d16"),
    "fs_val_v3.zip": (8046056, "sha256", "3813994ccb73645d28aa53946646a03d859dbeb9a2d31ad7233e45db00878b8f"),
    "dataset_AnomalyTrack.zip": (0, "md5", "231bf79ed58924bcd33d9cbe22e61076"),
    "dataset_ObstacleTrack.zip": (0, "md5", "895fb36d18765482cc291f69e63d6da6"),
}  # fmt: skip


def check_archives(root: Path, full: bool) -> list[Finding]:
    """Compare known archives in the root or beside it with what is published; `full` reads them."""
    present = [folder / name for folder in (root, root.parent) for name in ARCHIVES if (folder / name).is_file()]
    damaged = [path for path in present if not _fits(path, full)]
    return [*find("archive_damaged", damaged), *find("archive_present", present)]


def _fits(path: Path, full: bool) -> bool:
    (published, algorithm, digits), size = ARCHIVES[path.name], path.stat().st_size
    if not size or (published and size != published):
        return False
    return not full or file_hash(path, algorithm) == digits
