"""numba kernels: projection, rasterisation with sorted transparent fragments, soft visibility.

Single threaded and without the interpreter lock: run one process per core.
"""

from __future__ import annotations

import math

import numba as nb
import numpy as np

FAST = {"fastmath": True, "cache": True, "nogil": True}
LAYERS = 6  # transparent fragments kept per sample, nearest first
OPAQUE, DECAL, GLASS, STRANDS = range(4)  # how a material covers: DECAL lies on the skin
DECAL_BIAS = 1.0006  # relative, on 1 / z
ALPHA_MIN = 0.03


@nb.njit(**FAST)
def project(v, view, fx, fy, cx, cy, out):
    """World points [N, 3] to pixels and 1 / z [N, 3]; view: world2cam [3, 4], OpenCV axes."""
    for i in range(v.shape[0]):
        a, b, c = v[i, 0], v[i, 1], v[i, 2]
        x = view[0, 0] * a + view[0, 1] * b + view[0, 2] * c + view[0, 3]
        y = view[1, 0] * a + view[1, 1] * b + view[1, 2] * c + view[1, 3]
        z = view[2, 0] * a + view[2, 1] * b + view[2, 2] * c + view[2, 3]
        iz = 1 / max(z, 1e-3)
        out[i, 0] = fx * x * iz + cx
        out[i, 1] = fy * y * iz + cy
        out[i, 2] = iz  # linear on screen


@nb.njit(**FAST)
def sample_texture(tex, offset, w, h, u, v, out):
    """Bilinear, wrapping; v up; out[4]."""
    x = u * w - 0.5
    y = (1 - v) * h - 0.5
    ix = int(math.floor(x))
    iy = int(math.floor(y))
    fx = x - ix
    fy = y - iy
    x0 = ix % w
    x1 = (ix + 1) % w
    y0 = offset + (iy % h) * w * 4
    y1 = offset + ((iy + 1) % h) * w * 4
    a = y0 + x0 * 4
    b = y0 + x1 * 4
    c = y1 + x0 * 4
    d = y1 + x1 * 4
    wa = (1 - fx) * (1 - fy)
    wb = fx * (1 - fy)
    wc = (1 - fx) * fy
    wd = fx * fy
    for k in range(4):
        out[k] = tex[a + k] * wa + tex[b + k] * wb + tex[c + k] * wc + tex[d + k] * wd


@nb.njit(**FAST)
def mip_level(uv, p, a, b, c, w, h, levels):
    """The level at which a texel is about one sample, from the triangle's two areas."""
    texels = abs(
        (uv[b, 0] - uv[a, 0]) * (uv[c, 1] - uv[a, 1])
        - (uv[c, 0] - uv[a, 0]) * (uv[b, 1] - uv[a, 1])
    )
    samples = abs(
        (p[b, 0] - p[a, 0]) * (p[c, 1] - p[a, 1]) - (p[c, 0] - p[a, 0]) * (p[b, 1] - p[a, 1])
    )
    r = texels * w * h / max(samples, 1e-6)
    level = 0
    while r > 2.5 and level < levels - 1:
        r *= 0.25
        level += 1
    return level


@nb.njit(**FAST)
def rasterise(
    p, uv, tri, mat, draw, cull, cover, tex, offset, width, height, levels,
    zb, ib, b1, b2, count, fz, fi, f1, f2, fa,
):  # fmt: skip
    """Fills the sample buffers [S, S] of one view; opaque triangles must come first.

    zb 1/z, ib triangle (-1 none), b1 and b2 its barycentric weights of the nearest opaque surface;
    count and the f* buffers [S, S, LAYERS] the transparent fragments before it.
    """
    size = zb.shape[0]
    zb[:] = 0
    ib[:] = -1
    count[:] = 0
    texel = np.zeros(4, np.float32)
    for t in range(tri.shape[0]):
        m = mat[t]
        if not draw[m]:
            continue
        a, b, c = tri[t, 0], tri[t, 1], tri[t, 2]
        x0, y0, x1, y1, x2, y2 = p[a, 0], p[a, 1], p[b, 0], p[b, 1], p[c, 0], p[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-9 or (cull[m] and area > 0):
            continue
        xa = max(0, int(math.ceil(min(x0, x1, x2) - 0.5)))
        xb = min(size - 1, int(math.floor(max(x0, x1, x2) - 0.5)))
        ya = max(0, int(math.ceil(min(y0, y1, y2) - 0.5)))
        yb = min(size - 1, int(math.floor(max(y0, y1, y2) - 0.5)))
        if xa > xb or ya > yb:
            continue
        inv = 1 / area
        z0, z1, z2 = p[a, 2], p[b, 2], p[c, 2]
        how = cover[m]
        lo, w, h = 0, 1, 1
        if how == DECAL or how == STRANDS:
            level = mip_level(uv, p, a, b, c, width[m, 0], height[m, 0], levels[m])
            lo, w, h = offset[m, level], width[m, level], height[m, level]
        for y in range(ya, yb + 1):
            sy = y + 0.5
            for x in range(xa, xb + 1):
                sx = x + 0.5
                w1 = ((sx - x0) * (y2 - y0) - (x2 - x0) * (sy - y0)) * inv
                w2 = ((x1 - x0) * (sy - y0) - (sx - x0) * (y1 - y0)) * inv
                w0 = 1 - w1 - w2
                if w0 < 0 or w1 < 0 or w2 < 0:
                    continue
                iz = w0 * z0 + w1 * z1 + w2 * z2
                if how == OPAQUE:
                    if iz > zb[y, x]:
                        zb[y, x] = iz
                        ib[y, x] = t
                        b1[y, x] = w1
                        b2[y, x] = w2
                    continue
                if (iz * DECAL_BIAS if how == DECAL else iz) < zb[y, x]:
                    continue
                alpha = 1.0
                if how != GLASS:
                    u = (w0 * uv[a, 0] * z0 + w1 * uv[b, 0] * z1 + w2 * uv[c, 0] * z2) / iz
                    v = (w0 * uv[a, 1] * z0 + w1 * uv[b, 1] * z1 + w2 * uv[c, 1] * z2) / iz
                    sample_texture(tex, lo, w, h, u, v, texel)
                    alpha = texel[3]
                    if alpha < ALPHA_MIN:
                        continue
                    if how == STRANDS:
                        alpha = min(1.0, alpha * 1.25)
                n = count[y, x]
                k = n
                while k > 0 and fz[y, x, k - 1] < iz:
                    k -= 1
                if k >= LAYERS:
                    continue
                e = min(n, LAYERS - 1)
                while e > k:
                    fz[y, x, e] = fz[y, x, e - 1]
                    fi[y, x, e] = fi[y, x, e - 1]
                    f1[y, x, e] = f1[y, x, e - 1]
                    f2[y, x, e] = f2[y, x, e - 1]
                    fa[y, x, e] = fa[y, x, e - 1]
                    e -= 1
                fz[y, x, k] = iz
                fi[y, x, k] = t
                f1[y, x, k] = w1
                f2[y, x, k] = w2
                fa[y, x, k] = alpha
                if n < LAYERS:
                    count[y, x] = n + 1


@nb.njit(**FAST)
def _depth_map(px, py, pz, tri, z):
    """Orthographic depth map [R, R], smaller is nearer."""
    size = z.shape[0]
    z[:] = 1e9
    for t in range(tri.shape[0]):
        a, b, c = tri[t, 0], tri[t, 1], tri[t, 2]
        x0, y0, x1, y1, x2, y2 = px[a], py[a], px[b], py[b], px[c], py[c]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(area) < 1e-7:
            continue
        xa = max(0, int(math.ceil(min(x0, x1, x2) - 0.5)))
        xb = min(size - 1, int(math.floor(max(x0, x1, x2) - 0.5)))
        ya = max(0, int(math.ceil(min(y0, y1, y2) - 0.5)))
        yb = min(size - 1, int(math.floor(max(y0, y1, y2) - 0.5)))
        if xa > xb or ya > yb:
            continue
        inv = 1 / area
        for y in range(ya, yb + 1):
            sy = y + 0.5
            for x in range(xa, xb + 1):
                sx = x + 0.5
                w1 = ((sx - x0) * (y2 - y0) - (x2 - x0) * (sy - y0)) * inv
                w2 = ((x1 - x0) * (sy - y0) - (sx - x0) * (y1 - y0)) * inv
                w0 = 1 - w1 - w2
                if w0 >= 0 and w1 >= 0 and w2 >= 0:
                    d = w0 * pz[a] + w1 * pz[b] + w2 * pz[c]
                    if d < z[y, x]:
                        z[y, x] = d


@nb.njit(**FAST)
def irradiance(verts, tri, points, normals, wrap, bias, directions, radiance, radius, size, out):
    """Light on points with soft shadows, from many directions with one depth map each.

    verts [V, 3], tri [T, 3]: what casts shadows; points, normals [N, 3]: what receives them; wrap
    bool [N]: light bends round (hair); bias [N] metres; directions, radiance [D, 3]; radius: half
    the width of the depth maps, centred on the origin; size: their resolution; out [N, 3] is the
    mean over the sphere, scaled so that radiance 1 without shadows gives 1.
    """
    z = np.empty((size, size), np.float32)
    px = np.empty(verts.shape[0], np.float32)
    py = np.empty(verts.shape[0], np.float32)
    pz = np.empty(verts.shape[0], np.float32)
    out[:] = 0
    k = size / (2 * radius)
    half = size / 2
    for j in range(directions.shape[0]):
        d0, d1, d2 = directions[j, 0], directions[j, 1], directions[j, 2]
        s = 1 / math.sqrt(d0 * d0 + d2 * d2 + 1e-9)  # x = up x d, y = d x x; d never points up
        x0, x2 = d2 * s, -d0 * s
        y0, y1, y2 = d1 * x2, d2 * x0 - d0 * x2, -d1 * x0
        for i in range(verts.shape[0]):
            a, b, c = verts[i, 0], verts[i, 1], verts[i, 2]
            px[i] = (a * x0 + c * x2) * k + half
            py[i] = (a * y0 + b * y1 + c * y2) * k + half
            pz[i] = -(a * d0 + b * d1 + c * d2)
        _depth_map(px, py, pz, tri, z)
        for i in range(points.shape[0]):
            cosine = normals[i, 0] * d0 + normals[i, 1] * d1 + normals[i, 2] * d2
            if wrap[i]:
                cosine = (cosine + 0.35) / 1.35
            if cosine <= 0:
                continue
            a, b, c = points[i, 0], points[i, 1], points[i, 2]
            u = (a * x0 + c * x2) * k + half - 0.5
            v = (a * y0 + b * y1 + c * y2) * k + half - 0.5
            near = -(a * d0 + b * d1 + c * d2) - bias[i]
            iu = int(math.floor(u))
            iv = int(math.floor(v))
            fu = u - iu
            fv = v - iv
            seen = 0.0
            for oy in range(2):
                for ox in range(2):
                    x = iu + ox
                    y = iv + oy
                    w = (fu if ox else 1 - fu) * (fv if oy else 1 - fv)
                    if x < 0 or y < 0 or x >= size or y >= size or near <= z[y, x]:
                        seen += w
            q = seen * cosine
            for m in range(3):
                out[i, m] += q * radiance[j, m]
    q = 4.0 / directions.shape[0]
    for i in range(points.shape[0]):
        for m in range(3):
            out[i, m] *= q
