"""Exact leave-one-out of the logistic regression: n small corrections instead of n fits.

Without segment i the objective changes by one term, so its minimum lies close to the minimum w of
all segments. Write w + d for it, z = U w, δ = U d, p = σ(z), s = p (1 - p), H = Uᵀ diag(s) U + λ I.
The gradient at w + d is then exactly

    g(d) = H d + Uᵀ q - (σ(z_i + δ_i) - y_i) u_i + λ (P_i - I) (w + d),
    q = σ(z + δ) - p - s δ,

where P_i = I if the scaling stays (published), and is the penalty seen from the common coordinates
if the scaling, too, is fitted without i: diag(t², 0) + v vᵀ, v = (m, 1), with mean m and standard
deviation t of the remaining scaled values. Steps with H less the i-th term, a rank one change that
needs no factorisation of its own, are done for a block of i at once: two matrix products. Since q
is of second order in δ, single precision is enough for it. The few i that are far from w get
Newton steps with their own H.

The error is bounded, not hoped for: with ν = max |δ|, |u_i (w_i - w - d)| <=
e^ν |u_i|_M |g|_M, both norms by the inverse of M = H - s_i u_i u_iᵀ (the loss is self-concordant:
its curvature changes by at most e^ν; Bach, Electronic Journal of Statistics 4, 2010).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.linalg
from scipy.special import expit
from threadpoolctl import threadpool_info, threadpool_limits

from meta_ood.meta_classification import logistic
from meta_ood.meta_classification.features import Flags, Floats, Integers

_BLOCK = 512
"""Segments left out at once: enough for fast matrix products, little memory."""
_ROWS = 2048
"""Rows of the design treated at once, so that a block stays in the cache."""
_NEAR = 0.5
"""Largest |δ| at which the common curvature is used."""
_OWN_STEPS = 60
_VANISHING = 1e-6
"""A column whose variance falls below this share without i must be scaled anew."""


@dataclass(frozen=True)
class LeftOut:
    """Leave-one-out log odds.

    Attributes
    ----------
    log_odds
        ``(R,)`` log odds of each segment from the fit without it.
    solved
        ``(R,) bool``; False where leaving the segment out makes a feature constant, so that it
        needs a fit of its own.
    """

    log_odds: Floats
    solved: Flags


class _Problem:
    """The fit on all segments, and what the fits without one of them share with it."""

    def __init__(self, scaled: Floats, false: Flags, penalty: float, rescale: bool) -> None:
        self.u = logistic.with_ones(scaled)
        self.y = false.astype(np.float64)
        self.penalty, self.rescale = penalty, rescale
        self.w = logistic.newton(self.u, false, penalty=penalty)
        self.z = self.u @ self.w
        self.p = expit(self.z)
        self.s = self.p * (1 - self.p)
        hessian = self.u.T @ (self.s[:, None] * self.u) + penalty * np.eye(len(self.w))
        factor = scipy.linalg.cho_factor(hessian)
        self.hessian = hessian
        self.inverse: Floats = scipy.linalg.cho_solve(factor, np.eye(len(self.w)))
        self.leverage = np.einsum("nd,dc,nc->n", self.u, self.inverse, self.u, optimize=True)
        self.left = 1 - self.s * self.leverage  # above 0: the penalty is
        self.single = self.u.astype(np.float32)
        self.narrow = (self.p.astype(np.float32)[:, None], self.s.astype(np.float32)[:, None])
        self.wide = (self.p[:, None], self.s[:, None])
        n = len(scaled)
        rest = max(n - 1, 1)
        if rescale:
            varies = scaled.any(axis=0)
            self.mean = -scaled / rest
            self.variance = np.where(varies, (n - scaled**2) / rest - self.mean**2, 1.0)

    def vanishing(self) -> Flags:
        """Return ``(S,)``: without which segments a feature becomes (nearly) constant."""
        if not self.rescale:
            return np.zeros(len(self.y), bool)
        few: Flags = np.any(self.variance < _VANISHING, axis=1)
        return few

    def change_of_penalty(self, rows: Integers, d: Floats) -> Floats:
        """Return ``λ (P_i - I) (w + d)``, ``(D, B)``."""
        if not self.rescale:
            return np.zeros_like(d)
        weights = self.w[:, None] + d
        mean, variance = self.mean[rows].T, self.variance[rows].T
        along = (mean * weights[:-1]).sum(axis=0) + weights[-1]
        change = np.vstack([(variance - 1) * weights[:-1] + mean * along, along - weights[-1]])
        scaled: Floats = self.penalty * change
        return scaled

    def gradient(self, rows: Integers, d: Floats, curved: Floats) -> Floats:
        """Return the gradient at ``w + d``, ``(D, B)``; `curved` is ``Uᵀ q``."""
        u = self.u[rows].T
        own = expit(self.z[rows] + (u * d).sum(axis=0)) - self.y[rows]
        gradient: Floats = self.hessian @ d + curved - own * u + self.change_of_penalty(rows, d)
        return gradient

    def solve(self, rows: Integers, right: Floats) -> Floats:
        """Return ``(H - s_i u_i u_iᵀ)⁻¹ right`` for each column, by Sherman and Morrison."""
        common = self.inverse @ right
        u = self.u[rows].T
        share = self.s[rows] * (u * common).sum(axis=0) / self.left[rows]
        downdated: Floats = common + share * (self.inverse @ u)
        return downdated

    def curved(self, d: Floats, single: bool) -> tuple[Floats, Floats]:
        """Return ``Uᵀ q``, ``(D, B)``, and ``max |δ|``, ``(B,)``."""
        u: npt.NDArray[np.floating] = self.single if single else self.u
        p, s = self.narrow if single else self.wide
        direction = d.astype(u.dtype)
        total, largest = np.zeros(d.shape), np.zeros(d.shape[1])
        for first in range(0, len(u), _ROWS):
            part = slice(first, first + _ROWS)
            delta = u[part] @ direction
            np.maximum(largest, np.abs(delta).max(axis=0), out=largest)
            # σ(z + δ) - p = s a / (1 + p a) with a = e^δ - 1: no cancellation but the wanted one
            grown = np.expm1(np.minimum(delta, 80, out=delta))
            grown /= 1 + p[part] * grown
            grown -= delta
            grown *= s[part]
            total += u[part].T @ grown
        return total, largest

    def log_odds(self, rows: Integers, d: Floats) -> Floats:
        """Return the log odds of the segments left out, ``(B,)``."""
        odds: Floats = self.z[rows] + (self.u[rows].T * d).sum(axis=0)
        return odds


def leave_one_out(
    scaled: Floats,
    false: Flags,
    rows: Integers,
    *,
    penalty: float = 1.0,
    rescale: bool = True,
    tolerance: float = 1e-8,
) -> LeftOut:
    """Judge every segment by the logistic regression fitted on all others.

    Parameters
    ----------
    scaled
        ``(S, F) float64``, finite, each column with mean 0 and variance 1 over all S (or all 0).
    false
        ``(S,) bool``.
    rows
        ``(R,)`` which segments to leave out, one at a time; both kinds remain without each.
    penalty
        Weight of the L2 term.
    rescale
        True: mean and standard deviation are those of the S - 1 others; False: they stay as given
        (published).
    tolerance
        Bound on the error of the log odds; a probability errs by at most a quarter of it.
    """
    problem = _Problem(scaled, false, penalty, rescale)
    solved = ~problem.vanishing()[rows]
    log_odds = np.zeros(len(rows))

    def solve(first: int) -> None:
        block = np.flatnonzero(solved[first : first + _BLOCK]) + first
        log_odds[block] = _solve(problem, rows[block], tolerance)

    # a thread a block: a third of the time is exponentials, which the BLAS does not share out
    with ThreadPoolExecutor(_threads()) as pool, threadpool_limits(1, "blas"):
        list(pool.map(solve, range(0, len(rows), _BLOCK)))
    return LeftOut(log_odds, solved)


def _threads() -> int:
    """Return how many threads the BLAS may use: as many as cores, or what OMP_NUM_THREADS says."""
    libraries = threadpool_info()
    return max((lib["num_threads"] for lib in libraries if lib["user_api"] == "blas"), default=1)


def _solve(problem: _Problem, rows: Integers, tolerance: float) -> Floats:
    """Return the log odds of a block, ``(B,)``: cheap steps first, dear ones for what is left."""
    none = np.zeros((len(problem.w), len(rows)))
    d = -problem.solve(rows, problem.gradient(rows, none, none))
    far = np.arange(len(rows))
    for single in (True, False):
        d[:, far], done = _common_steps(problem, rows[far], d[:, far], tolerance, single)
        far = far[~done]
    d[:, far] = _own_steps(problem, rows[far], d[:, far], tolerance)
    return problem.log_odds(rows, d)


def _common_steps(
    problem: _Problem, rows: Integers, start: Floats, tolerance: float, single: bool
) -> tuple[Floats, Flags]:
    """Step with the curvature at w less one term; return d ``(D, B)`` and which are done."""
    width = np.sqrt(problem.leverage[rows] / problem.left[rows])
    near, least, steps = (_NEAR, 0.5, 6) if single else (3.0, 0.8, 40)
    d = start.copy()
    done, before = np.zeros(len(rows), bool), np.full(len(rows), np.inf)
    active = np.arange(len(rows))
    for _ in range(steps if len(rows) else 0):
        curved, largest = problem.curved(d[:, active], single)
        gradient = problem.gradient(rows[active], d[:, active], curved)
        step = problem.solve(rows[active], gradient)
        norm = np.sqrt(np.maximum((gradient * step).sum(axis=0), 0))
        error = np.exp(np.minimum(largest, 50)) * width[active] * norm
        good = (largest < near) & (error < least * before[active])
        d[:, active[good]] -= step[:, good]
        done[active[good & (error < tolerance)]] = True
        before[active] = error
        active = active[good & (error >= tolerance)]
        if not len(active):
            break
    return d, done


def _own_steps(problem: _Problem, rows: Integers, start: Floats, tolerance: float) -> Floats:
    """Take damped Newton steps, each segment with its own curvature; return d ``(D, B)``."""
    size = len(problem.w)
    d = start.copy()
    # where the first guess is far out, begin at the common fit
    far = problem.curved(d, single=False)[1] > 3
    d[:, far] = 0
    active = np.arange(len(rows))
    for _ in range(_OWN_STEPS if len(rows) else 0):
        left, here = rows[active], d[:, active]
        gradient = problem.gradient(left, here, problem.curved(here, single=False)[0])
        hessian = np.empty((len(active), size, size))
        for column, row in enumerate(left):
            p = expit(problem.z + problem.u @ here[:, column])
            curvature = p * (1 - p)
            curvature[row] = 0  # left out
            hessian[column] = problem.u.T @ (curvature[:, None] * problem.u)
        hessian += _penalties(problem, left)
        step = np.linalg.solve(hessian, -gradient.T[:, :, None])[:, :, 0].T
        reach = np.zeros(len(active))
        for first in range(0, len(problem.u), _ROWS):
            ahead = np.abs(problem.u[first : first + _ROWS] @ step).max(axis=0)
            np.maximum(reach, ahead, out=reach)
        # log(1 + ν) / ν: a length at which a self-concordant loss is sure to fall
        length = np.where(reach > 1e-6, np.log1p(reach) / np.maximum(reach, 1e-6), 1.0)
        d[:, active] += length * step
        active = active[reach > np.sqrt(tolerance) * 1e-1]
        if not len(active):
            break
    return d


def _penalties(problem: _Problem, rows: Integers) -> Floats:
    """Return ``λ P_i``, ``(B, D, D)``."""
    size = len(problem.w)
    penalties = np.zeros((len(rows), size, size))
    diagonal = np.arange(size)
    if not problem.rescale:
        penalties[:, diagonal, diagonal] = 1.0
    else:
        v = np.hstack([problem.mean[rows], np.ones((len(rows), 1))])
        penalties += v[:, :, None] * v[:, None, :]
        penalties[:, diagonal[:-1], diagonal[:-1]] += problem.variance[rows]
    return problem.penalty * penalties
