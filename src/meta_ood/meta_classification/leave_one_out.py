"""Exact leave-one-out of the logistic regression: n small corrections instead of n fits.

Fitting n classifiers, each without one segment, takes a minute for 2000 segments. But one segment changes the weights
little, so this module fits all segments once and corrects that fit n times, hundreds of corrections at once as products
of matrices. A correction goes on until a bound on its error is below 1e-8. The few segments for which that does not
succeed (those that change the weights much) come back as NaN, and the caller fits a classifier without each of them.

Without segment i the objective changes by one term, so its minimum lies close to the minimum w of all segments. Write w
+ d for it, z = U w, δ = U d, p = σ(z), s = p (1 - p), H = Uᵀ diag(s) U + λ I, where the rows of U are the segments'
scaled features and a 1. The gradient at w + d is then exactly

    g(d) = H d + Uᵀ q - (σ(z_i + δ_i) - y_i) u_i + λ (P_i - I) (w + d),
    q = σ(z + δ) - p - s δ.

P_i = I if the scaling is that of all segments (published). If the scaling, too, is fitted without i, P_i is the penalty
as seen from the common coordinates: diag(t², 0) + v vᵀ, v = (m, 1), with mean m and standard deviation t of the
remaining scaled values. A step solves with H less the i-th term, a rank one change that needs no factorisation for
itself. Since q is of second order in δ, single precision is enough for it at first.

With ν = max |δ|, the error |u_i (w_i - w - d)| is at most e^ν |u_i|_M |g|_M, both norms by the inverse of M = H - s_i
u_i u_iᵀ (the loss is self-concordant: its curvature changes by at most e^ν; Bach, Electr. J. of Statistics 4, 2010).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.special import expit
from threadpoolctl import ThreadpoolController

from meta_ood.meta_classification.models import solver, with_ones
from meta_ood.metrics import Flags, Floats, Integers

_TOLERANCE = 1e-8  # bound on the error of the log odds; a probability errs by at most a quarter of it
_BLOCK = 512  # segments left out at once: enough for fast matrix products, little memory
_ROWS = 2048  # rows of U treated at once, so that a block stays in the processor's cache
# Series of correction steps: in single precision (twice as fast)?, number of steps, largest |δ|
# (beyond it the common curvature is too wrong), and the factor by which each step must lower the
# bound on the error. A segment that a series gives up goes into the next.
_PASSES = ((True, 6, 0.5, 0.5), (False, 40, 3.0, 0.8))


def leave_one_out(scaled: Floats, false: Flags, *, penalty: float = 1.0, rescale: bool = True) -> Floats:
    """Return ``(S,)`` log odds of each segment by the logistic regression fitted on all others.

    NaN for a segment without which a classifier must be fitted anew. `scaled` ``(S, F)`` is finite, each column with
    mean 0 and variance 1 over all S (or all 0); `false` ``(S,)`` holds both classes. With `rescale` the mean and the
    standard deviation are those of the S - 1 others, without they stay as given (published).
    """
    common = _CommonFit(scaled, false, penalty, rescale)
    log_odds = np.full(len(scaled), np.nan)

    def fill(first: int) -> None:
        rows = np.arange(first, min(first + _BLOCK, len(scaled)))
        if rescale:  # a feature whose variance falls below a millionth without a segment must be scaled anew
            rows = rows[(common.variance[rows] >= 1e-6).all(axis=1)]
        log_odds[rows] = _corrected_log_odds(common, rows)

    # As many threads as the BLAS may use (OMP_NUM_THREADS), each with a single-threaded BLAS: a third of the time is
    # exponentials, which the BLAS does not share out, and so the number of threads does not change the result.
    libraries = ThreadpoolController().select(user_api="blas")
    threads = max((library["num_threads"] for library in libraries.info()), default=1)
    with ThreadPoolExecutor(threads) as pool, libraries.limit(limits=1):
        list(pool.map(fill, range(0, len(scaled), _BLOCK)))
    return log_odds


def _corrected_log_odds(common: _CommonFit, rows: Integers) -> Floats:
    """Return ``(B,)`` log odds of the segments `rows`, each left out; NaN if not within bounds."""
    width = np.sqrt(common.leverage[rows] / common.left[rows])  # |u_i|_M
    # the first step, from d = 0, where q = 0
    d = -common.solve(rows, common.gradient(rows, np.zeros((len(common.w), len(rows))), 0.0))
    open_ = np.ones(len(rows), bool)
    for single, steps, largest_change, least_progress in _PASSES:
        active, before = np.flatnonzero(open_), np.full(len(rows), np.inf)
        for _ in range(steps):
            if not len(active):
                break
            # 1. gradient, step, and the bound on the error of the present d
            curved, change = common.second_order(d[:, active], single)
            gradient = common.gradient(rows[active], d[:, active], curved)
            step = common.solve(rows[active], gradient)
            norm = np.sqrt(np.maximum((gradient * step).sum(axis=0), 0))
            error = np.exp(np.minimum(change, 50)) * width[active] * norm
            # 2. go on with those that make progress
            good = (change < largest_change) & (error < least_progress * before[active])
            d[:, active[good]] -= step[:, good]
            open_[active[good & (error < _TOLERANCE)]] = False
            before[active] = error
            active = active[good & (error >= _TOLERANCE)]
    return np.where(open_, np.nan, common.z[rows] + (common.u[rows].T * d).sum(axis=0))


class _CommonFit:
    """The fit on all segments, for corrections ``(D, B)`` of blocks of B segments, one per column; D = F + 1."""

    def __init__(self, scaled: Floats, false: Flags, penalty: float, rescale: bool) -> None:
        self.u = with_ones(scaled)
        self.y = false.astype(np.float64)
        self.penalty, self.rescale = penalty, rescale
        self.w = solver(penalty).fit(self.u, false).coef_[0]
        self.z = self.u @ self.w
        self.p = expit(self.z)
        self.s = self.p * (1 - self.p)
        self.hessian = self.u.T @ (self.s[:, None] * self.u) + penalty * np.eye(len(self.w))
        self.inverse: Floats = scipy.linalg.inv(self.hessian)
        self.leverage = np.einsum("nd,dc,nc->n", self.u, self.inverse, self.u, optimize=True)
        self.left = 1 - self.s * self.leverage  # above 0: the penalty is
        double = (self.u, self.p[:, None], self.s[:, None])
        self.precisions = {False: double, True: tuple(a.astype(np.float32) for a in double)}
        # mean and variance of each column of the remaining rows, for each row left out
        n = len(scaled)
        self.mean = -scaled / max(n - 1, 1)
        self.variance = np.where(scaled.any(axis=0), (n - scaled**2) / max(n - 1, 1) - self.mean**2, 1.0)

    def gradient(self, rows: Integers, d: Floats, curved: Floats | float) -> Floats:
        """Return ``g(d)``, ``(D, B)``; `curved` is ``Uᵀ q``."""
        u = self.u[rows].T
        left_out = expit(self.z[rows] + (u * d).sum(axis=0)) - self.y[rows]
        gradient: Floats = self.hessian @ d + curved - left_out * u
        if self.rescale:  # add λ (P_i - I) (w + d)
            weights = self.w[:, None] + d
            mean, variance = self.mean[rows].T, self.variance[rows].T
            along = (mean * weights[:-1]).sum(axis=0) + weights[-1]
            gradient[:-1] += self.penalty * ((variance - 1) * weights[:-1] + mean * along)
            gradient[-1] += self.penalty * (along - weights[-1])
        return gradient

    def solve(self, rows: Integers, right: Floats) -> Floats:
        """Return ``(H - s_i u_i u_iᵀ)⁻¹ right``, ``(D, B)``, by Sherman and Morrison."""
        common = self.inverse @ right
        u = self.u[rows].T
        share = self.s[rows] * (u * common).sum(axis=0) / self.left[rows]
        downdated: Floats = common + share * (self.inverse @ u)
        return downdated

    def second_order(self, d: Floats, single: bool) -> tuple[Floats, Floats]:
        """Return ``Uᵀ q``, ``(D, B)``, and ``max |δ|``, ``(B,)``."""
        u, p, s = self.precisions[single]
        direction = d.astype(u.dtype)
        total, largest = np.zeros(d.shape), np.zeros(d.shape[1])
        for first in range(0, len(u), _ROWS):
            part = slice(first, first + _ROWS)
            delta: npt.NDArray[np.floating] = u[part] @ direction
            np.maximum(largest, np.abs(delta).max(axis=0), out=largest)
            # q = s (a / (1 + p a) - δ) with a = e^δ - 1: the only cancellation is the intended one.
            # The steps work in place, `grown` first, so their order matters.
            grown = np.expm1(np.minimum(delta, 80, out=delta))
            grown /= 1 + p[part] * grown
            grown -= delta
            grown *= s[part]
            total += u[part].T @ grown
        return total, largest
