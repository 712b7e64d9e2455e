"""Flattening a disk: first surely without folds, then with little distortion.

First a convex-combination map onto an ellipse (Tutte 1963, with Floater's mean value weights of
2003, positive, so no triangle folds), its weights loosened where triangles are squeezed (Yoshizawa,
Belyaev and Seidel 2004). Then the boundary is set free and the symmetric Dirichlet energy (Smith
and Schaefer 2015) lowered by Newton steps with quasi-Newton ones between; the energy is infinite
at a fold and every step stops short of one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.sparse import coo_matrix, csc_matrix, diags
from scipy.sparse.linalg import splu

from engine.surface.charts import Chart

REFRESH = 3  # steps from one Hessian to the next
FLOOR = 1e-2  # of a triangle's stiffness in any direction; an isometry's is 8


def rest_frames(vertices: np.ndarray, faces: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """float64 [F, 3, 2]: each triangle laid in a plane, enlarged by scale [F]; slivers are made a
    little thicker than they are, so that they cannot rule the energy."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    e, g = b - a, c - a
    length = np.linalg.norm(e, axis=1)
    typical = np.median(length)
    length = np.maximum(length, 0.02 * typical)
    x = np.einsum("ij,ij->i", e, g) / length
    y = np.linalg.norm(np.cross(e, g), axis=1) / length
    y = np.maximum(y, 0.05 * np.maximum(length, np.abs(x)))
    out = np.zeros((len(faces), 3, 2))
    out[:, 1, 0], out[:, 2, 0], out[:, 2, 1] = length, x, y
    return out * scale[:, None, None]


def _corner_weights(rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean value weights tan(angle / 2) / length of corner i's two edges, [F, 3] each: towards
    corner i + 1 and towards corner i + 2."""
    ahead = np.roll(rest, -1, 1) - rest
    back = np.roll(rest, -2, 1) - rest
    la, lb = np.linalg.norm(ahead, axis=2), np.linalg.norm(back, axis=2)
    cos = np.clip((ahead * back).sum(2) / (la * lb), -0.9999, 0.9999)
    half = np.sqrt((1 - cos) / (1 + cos))
    return half / la, half / lb


def _stretch(rest: np.ndarray, uv: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, float]:
    """Sander's L2 stretch of each vertex [V] and of the whole (1 is the least)."""
    u = uv[faces]
    d = np.stack([u[:, 1] - u[:, 0], u[:, 2] - u[:, 0]], 2)
    r = np.stack([rest[:, 1] - rest[:, 0], rest[:, 2] - rest[:, 0]], 2)
    area = np.abs(np.linalg.det(r)) / 2
    det = np.linalg.det(d)
    inverse = np.stack([d[:, 1, 1], -d[:, 0, 1], -d[:, 1, 0], d[:, 0, 0]], 1).reshape(-1, 2, 2)
    squared = ((r @ inverse) ** 2).sum((1, 2)) / 2 / np.maximum(det, 1e-18) ** 2
    flat = faces.ravel()
    n = len(uv)
    total = np.bincount(flat, np.repeat(area * squared, 3), minlength=n)
    vertex = np.sqrt(total / np.bincount(flat, np.repeat(area, 3), minlength=n))
    whole = np.sqrt((area * squared).sum() / area.sum() * (np.abs(det) / 2).sum() / area.sum())
    return vertex, float(whole)


def ellipse(chart: Chart, right: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Places [b, 2] for the chart's boundary on an ellipse, spaced by arc length, with the aspect
    and the phase of the boundary seen along right x up."""
    p = chart.vertices[chart.loop]
    flat = np.stack([p @ right, p @ up], 1)
    step = np.linalg.norm(np.roll(p, -1, 0) - p, axis=1)
    step = np.maximum(step, 0.05 * step.mean())
    angle = 2 * np.pi * (np.cumsum(step) - step) / step.sum()
    size = np.maximum(np.ptp(flat, 0), 0.4 * np.ptp(flat, 0).max()) / 2
    centred = (flat - (flat.max(0) + flat.min(0)) / 2) / size
    phase = np.angle(((centred[:, 0] + 1j * centred[:, 1]) * np.exp(-1j * angle) * step).sum())
    return np.stack([np.cos(angle + phase), np.sin(angle + phase)], 1) * size


def fixed(chart: Chart, rest: np.ndarray, boundary: np.ndarray, rounds: int = 4) -> np.ndarray:
    """A fold-free map [v, 2] of the chart onto the convex polygon `boundary` [b, 2]."""
    f, n = chart.faces, len(chart.vertices)
    ahead, back = _corner_weights(rest)
    rows = np.concatenate([f.ravel(), f.ravel()])
    cols = np.concatenate([f[:, (1, 2, 0)].ravel(), f[:, (2, 0, 1)].ravel()])
    weights = coo_matrix((np.concatenate([ahead.ravel(), back.ravel()]), (rows, cols)), (n, n))
    weights = weights.tocsr()
    free = np.ones(n, bool)
    free[chart.loop] = False
    uv = np.zeros((n, 2))
    uv[chart.loop] = boundary
    best, best_stretch = uv, np.inf
    for _ in range(rounds if free.any() else 1):
        inner = weights[free]
        total = np.asarray(inner.sum(1)).ravel()
        inner = diags(1 / total) @ inner
        uv = uv.copy()
        if free.any():
            system = csc_matrix(diags(np.ones(free.sum())) - inner[:, free])
            uv[free] = splu(system, permc_spec="COLAMD").solve(inner[:, chart.loop] @ boundary)
        stretch, whole = _stretch(rest, uv, f)
        if not whole < best_stretch * 0.99:
            break
        best, best_stretch = uv, whole
        weights = weights @ diags(1 / np.clip(stretch / np.median(stretch), 0.02, 50))
    return best


class _Energy:
    """The symmetric Dirichlet energy of maps of a triangulated disk, its gradient, its
    Hessian."""

    def __init__(self, rest: np.ndarray, faces: np.ndarray, count: int) -> None:
        e, g = rest[:, 1], rest[:, 2]  # corner 0 is the origin
        det = e[:, 0] * g[:, 1] - e[:, 1] * g[:, 0]
        # Gradient of the hat functions of corners 1 and 2; corner 0's is minus their sum.
        g1 = np.stack([g[:, 1], -g[:, 0]], 1) / det[:, None]
        g2 = np.stack([-e[:, 1], e[:, 0]], 1) / det[:, None]
        hats = np.stack([-g1 - g2, g1, g2], 1)
        self.area = det / 2 / (det.sum() / 2)
        rows = np.repeat(np.arange(len(faces)), 3)
        shape = (len(faces), count)
        self.dx = coo_matrix((hats[:, :, 0].ravel(), (rows, faces.ravel())), shape).tocsr()
        self.dy = coo_matrix((hats[:, :, 1].ravel(), (rows, faces.ravel())), shape).tocsr()
        self.dxt, self.dyt = self.dx.T.tocsr(), self.dy.T.tocsr()
        corner = np.concatenate([faces, faces + count], 1)  # u of the corners, then v
        self.hats, self.count = hats, count
        self.rows, self.cols = np.repeat(corner, 6, 1).ravel(), np.tile(corner, 6).ravel()

    def hessian(self, uv: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Solver d -> H^-1 d, [v, 2] both, for the energy's Hessian at uv with the negative part of
        each triangle's left out (closed form: Smith, de Goes and Kim 2019)."""
        j = np.stack([self.dx @ uv, self.dy @ uv], 2)  # [F, 2, 2], rows u and v
        u, s, vt = np.linalg.svd(j)
        s = np.maximum(s, 1e-6)
        s1, s2 = s[:, 0], s[:, 1]
        first, mix = 2 * s - 2 * s**-3, (s1**2 + s1 * s2 + s2**2) / (s1 * s2) ** 3
        values = np.stack(
            [2 + 6 * s1**-4, 2 + 6 * s2**-4, first.sum(1) / s.sum(1), 2 + 2 * mix], 1
        ).clip(FLOOR)
        first_mode, second_mode, a, b = (
            u[:, :, i, None] * vt[:, k, None] for i, k in ((0, 0), (1, 1), (1, 0), (0, 1))
        )
        half = 0.5**0.5
        modes = np.stack([first_mode, second_mode, half * (a - b), half * (a + b)], 1)
        # Each mode as a covector of the six corner coordinates.
        cov = np.einsum("fmij,fkj->fmik", modes, self.hats).reshape(len(j), 4, 6)
        weight = (values * self.area[:, None])[:, :, None]
        blocks = np.matmul((cov * weight).transpose(0, 2, 1), cov)
        n = 2 * self.count
        h = coo_matrix((blocks.ravel(), (self.rows, self.cols)), (n, n)).tocsc()
        h = h + diags(np.full(n, 1e-7 * h.diagonal().mean()))
        factor = splu(
            csc_matrix(h),
            permc_spec="MMD_AT_PLUS_A",
            options={"SymmetricMode": True, "DiagPivotThresh": 0.0},
        )
        return lambda d: factor.solve(d.T.ravel()).reshape(2, -1).T

    def value(self, uv: np.ndarray) -> float:
        jx, jy = self.dx @ uv, self.dy @ uv
        det = jx[:, 0] * jy[:, 1] - jx[:, 1] * jy[:, 0]
        if det.min() <= 0:
            return np.inf
        squared = (jx**2).sum(1) + (jy**2).sum(1)
        return float((self.area * squared * (1 + 1 / det**2)).sum())

    def gradient(self, uv: np.ndarray) -> np.ndarray:
        jx, jy = self.dx @ uv, self.dy @ uv
        det = jx[:, 0] * jy[:, 1] - jx[:, 1] * jy[:, 0]
        squared = (jx**2).sum(1) + (jy**2).sum(1)
        near = (2 * self.area * (1 + det**-2))[:, None]
        far = (2 * self.area * squared * det**-3)[:, None]
        px = near * jx - far * np.stack([jy[:, 1], -jy[:, 0]], 1)
        py = near * jy - far * np.stack([-jx[:, 1], jx[:, 0]], 1)
        return self.dxt @ px + self.dyt @ py

    def best_scale(self, uv: np.ndarray) -> float:
        jx, jy = self.dx @ uv, self.dy @ uv
        det = jx[:, 0] * jy[:, 1] - jx[:, 1] * jy[:, 0]
        squared = (jx**2).sum(1) + (jy**2).sum(1)
        b = (self.area * squared / np.maximum(det, 1e-12) ** 2).sum()
        return float((b / (self.area * squared).sum()) ** 0.25)

    def longest_step(self, uv: np.ndarray, direction: np.ndarray) -> float:
        """The step along direction at which the first triangle folds."""
        ux, uy = self.dx @ uv, self.dy @ uv
        dx, dy = self.dx @ direction, self.dy @ direction
        a = dx[:, 0] * dy[:, 1] - dx[:, 1] * dy[:, 0]
        b = ux[:, 0] * dy[:, 1] - ux[:, 1] * dy[:, 0] + dx[:, 0] * uy[:, 1] - dx[:, 1] * uy[:, 0]
        c = ux[:, 0] * uy[:, 1] - ux[:, 1] * uy[:, 0]
        root = np.sqrt(np.maximum(b * b - 4 * a * c, 0))
        # The smallest positive root, in the form that does not cancel.
        with np.errstate(divide="ignore", invalid="ignore"):
            q = -(b + np.where(b >= 0, root, -root)) / 2
            t = np.stack([q / a, c / q])
        t[:, b * b < 4 * a * c] = np.inf
        t = np.where(np.isfinite(t) & (t > 0), t, np.inf)
        return float(t.min())


def relax(
    chart: Chart, rest: np.ndarray, uv: np.ndarray, rounds: int, check: Callable[[], None]
) -> list[np.ndarray]:
    """Maps [v, 2] with the boundary set free, each less distorted than the one before; the first is
    uv at its best scale. Never a fold, given none; but distant parts may come to overlap."""
    energy = _Energy(rest, chart.faces, len(uv))
    x = uv * energy.best_scale(uv)
    value = energy.value(x)
    path = [x]
    if not np.isfinite(value):
        return path
    g = energy.gradient(x)
    age, before = REFRESH, np.inf
    for _ in range(rounds):
        check()
        if age >= REFRESH:
            if before - value < 1e-3 * value:
                break
            solve, before, age = energy.hessian(x), value, 0
            pairs: list[tuple[np.ndarray, np.ndarray, float]] = []
        q, alphas = g.copy(), []
        for s, y, rho in reversed(pairs):
            alphas.append(rho * (s * q).sum())
            q -= alphas[-1] * y
        d = solve(q)
        for (s, y, rho), alpha in zip(pairs, reversed(alphas), strict=True):
            d += s * (alpha - rho * (y * d).sum())
        slope = -(g * d).sum()
        step = min(1.0, 0.8 * energy.longest_step(x, -d))
        for _ in range(12):
            new = energy.value(x - step * d)
            if new <= value + 1e-4 * step * slope:
                break
            step *= 0.5
        else:
            if age == 0:  # no better along the Newton step itself
                break
            age = REFRESH  # the remembered steps mislead
            continue
        s = -step * d
        x = x + s
        path.append(x)
        fresh = energy.gradient(x)
        y = fresh - g
        if (s * y).sum() > 1e-12:
            pairs = [*pairs, (s, y, 1 / (s * y).sum())]
        value, g, age = new, fresh, age + 1
    return path
