"""Exact leave-one-out of the meta classifier against one cold liblinear fit for each segment.

    python benchmarks/meta.py [--sizes 500 2000 5000 20000] [--all-up-to 500] [--fits 40]

Prints a table: ours with fixed scaling (published) and with scaling fitted without the segment, the published way (all
n cold fits up to --all-up-to, above that --fits of them, times n / fits), the ratio, the limit, and how far the
probabilities are from the cold fits: at scikit-learn's default tolerance, as published, and at 1e-10.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import numpy as np
from sklearn.linear_model import LogisticRegression

from meta_ood.meta_classification.features import Scaling
from meta_ood.meta_classification.folds import leave_single_segments_out

LIMITS = {500: 0.3, 2000: 1.0, 5000: 1.0, 20000: 15.0}  # seconds


def segments(count: int, features: int = 75) -> tuple[np.ndarray, np.ndarray]:
    """Return correlated, partly skewed features and which segments are false, about 70 %."""
    rng = np.random.default_rng(count)
    hidden = rng.normal(size=(count, 20))
    values = hidden @ rng.normal(size=(20, features)) + 0.7 * rng.normal(size=(count, features))
    values[:, ::3] = np.exp(values[:, ::3] / 4)
    odds = 1.5 * hidden[:, 0] + hidden[:, 1] + 1.2 + rng.normal(size=count)
    return values, odds > 0


def cold_fits(scaled: np.ndarray, false: np.ndarray, rows: np.ndarray, tolerance: float) -> tuple[np.ndarray, float]:
    """Fit without each of `rows` from scratch; return the probabilities and the seconds."""
    began = time.perf_counter()
    probability = []
    for row in rows:
        rest = np.arange(len(false)) != row
        model = LogisticRegression(solver="liblinear", tol=tolerance, max_iter=1000, random_state=0)
        model.fit(scaled[rest], false[rest])
        probability.append(model.predict_proba(scaled[[row]])[0, 1])
    return np.array(probability), time.perf_counter() - began


def median_seconds(values: np.ndarray, false: np.ndarray, published: bool, times: int) -> float:
    """Return the median time of the whole leave-one-out."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        leave_single_segments_out(values, false, published)
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=list(LIMITS))
    parser.add_argument("--all-up-to", type=int, default=500)
    parser.add_argument("--fits", type=int, default=40)
    arguments = parser.parse_args()
    print(f"75 features; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print("       n   fixed  refitted   cold fits    ratio   limit   |dp| tol 1e-4   |dp| tol 1e-10")
    for count in arguments.sizes:
        values, false = segments(count)
        scaled = Scaling.of(values)(values)
        every = np.arange(count)
        ours = leave_single_segments_out(values, false, True).probability  # warms up, too
        times = 5 if count <= 5000 else 3
        fixed, refitted = (median_seconds(values, false, p, times) for p in (True, False))
        rows = every[:: 1 if count <= arguments.all_up_to else max(1, count // arguments.fits)]
        published, seconds = cold_fits(scaled, false, rows, 1e-4)
        exact, _ = cold_fits(scaled, false, rows[:: max(1, len(rows) // 20)], 1e-10)
        cold = seconds * count / len(rows)
        gap = np.abs(ours[rows] - published).max()
        small = np.abs(ours[rows[:: max(1, len(rows) // 20)]] - exact).max()
        mark = "" if len(rows) == count else "*"
        print(
            f"{count:8d} {fixed:7.2f} {refitted:9.2f} {cold:10.1f}{mark:1s} {cold / fixed:8.0f}"
            f" {LIMITS.get(count, float('nan')):7.1f} {gap:15.1e} {small:16.1e}",
            flush=True,
        )
    print("seconds, medians; * extrapolated from a sample of the fits")


if __name__ == "__main__":
    main()
