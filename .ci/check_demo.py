"""Say whether the demo shows the effect: python .ci/check_demo.py data/report/results.csv."""

import csv
import sys
from collections import defaultdict
from pathlib import Path

LARGEST_MIOU_LOSS = 0.01
LEAST_SHARE_REMOVED = 0.5  # of the false segments on sets with objects
LEAST_SHARE_ORDINARY = 0.8  # and on ordinary frames


def main(path: Path) -> int:
    """Compare baseline and ood_trained network by network, dataset by dataset."""
    cells: dict[tuple[str, str], dict[str, dict[str, str]]] = defaultdict(dict)
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            cells[row["network"], row["dataset"]][row["variant"]] = row
    failures, checks = [], 0
    for (network, dataset), variants in cells.items():
        before, after = variants["baseline"], variants["ood_trained"]
        for metric, sign in (("auroc", 1), ("auprc", 1), ("fpr95", -1)):
            if before[metric]:
                checks += 1
                if sign * (float(after[metric]) - float(before[metric])) <= 0:
                    failures.append(f"{network} {dataset}: {metric} got worse")
        if before["miou"]:
            checks += 1
            if float(before["miou"]) - float(after["miou"]) >= LARGEST_MIOU_LOSS:
                failures.append(f"{network} {dataset}: mIoU lost a point or more")
        checks += 1
        false, left = (float(after[f"segment_false_positives{end}"]) for end in ("", "_after_meta"))
        least = LEAST_SHARE_REMOVED if after["auroc"] else LEAST_SHARE_ORDINARY
        if false - left < least * false:
            failures.append(f"{network} {dataset}: meta classification left {left:.0f} of {false:.0f} false segments")
    for failure in failures:
        sys.stderr.write(f"demo: {failure}\n")
    sys.stdout.write(f"demo: {checks - len(failures)} passed, {len(failures)} failed\n")
    return 1 if failures or checks < 16 else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
