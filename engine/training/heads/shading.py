"""numba kernels: the colour of a fragment, and samples to pixels."""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from engine.training.heads.parts import BACKGROUND
from engine.training.heads.raster import FAST, mip_level, sample_texture

SURFACE, STRAND, CLEAR = range(3)  # kinds of shading
OPAQUE_AT = 0.03  # transmittance below which nothing behind counts


@nb.njit(**FAST)
def _sh9(c, x, y, z, out):
    for k in range(3):
        r = (
            c[0, k] + c[1, k] * y + c[2, k] * z + c[3, k] * x + c[4, k] * x * y + c[5, k] * y * z
            + c[6, k] * (3 * z * z - 1) + c[7, k] * x * z + c[8, k] * (x * x - y * y)
        )  # fmt: skip
        out[k] = max(r, 0.0)


@nb.njit(**FAST)
def _sh9_diffuse(c, x, y, z, out):
    """Irradiance: the harmonics narrowed by the cosine lobe (Ramamoorthi and Hanrahan 2001)."""
    for k in range(3):
        r = c[0, k] + (c[1, k] * y + c[2, k] * z + c[3, k] * x) * 0.667 + 0.25 * (
            c[4, k] * x * y + c[5, k] * y * z + c[6, k] * (3 * z * z - 1) + c[7, k] * x * z
            + c[8, k] * (x * x - y * y)
        )  # fmt: skip
        out[k] = max(r, 0.0)


@nb.njit(**FAST)
def _environment(env, x, y, z, out):
    h, w = env.shape[0], env.shape[1]
    u = (math.atan2(x, z) / (2 * math.pi) + 0.5) * w - 0.5
    v = math.acos(min(1.0, max(-1.0, y))) / math.pi * h - 0.5
    iu = int(math.floor(u))
    iv = int(math.floor(v))
    fu = u - iu
    fv = v - iv
    a = min(h - 1, max(0, iv))
    b = min(h - 1, max(0, iv + 1))
    c = iu % w
    d = (iu + 1) % w
    for k in range(3):
        upper = env[a, c, k] * (1 - fu) + env[a, d, k] * fu
        lower = env[b, c, k] * (1 - fu) + env[b, d, k] * fu
        out[k] = upper * (1 - fv) + lower * fv


@nb.njit(**FAST)
def _shade(t, w1, w2, p, scene, look, light, eye, texel, env, col):
    """Linear colour of triangle t at screen barycentrics into col[:3]; for clear materials the
    reflected light, and the share that does not pass in col[3]."""
    v, n, uv, e, tri, mat, tangent, u_slope, v_slope, gloss = scene
    kind, tint, spec, rough, tex, offset, width, height, levels, bump = look
    env_map, sh, key = light
    a, b, c = tri[t, 0], tri[t, 1], tri[t, 2]
    m = mat[t]
    q0 = (1 - w1 - w2) * p[a, 2]
    q1 = w1 * p[b, 2]
    q2 = w2 * p[c, 2]
    s = 1 / (q0 + q1 + q2)  # perspective-correct weights
    q0 *= s
    q1 *= s
    q2 *= s
    nx = n[a, 0] * q0 + n[b, 0] * q1 + n[c, 0] * q2
    ny = n[a, 1] * q0 + n[b, 1] * q1 + n[c, 1] * q2
    nz = n[a, 2] * q0 + n[b, 2] * q1 + n[c, 2] * q2
    vx = eye[0] - (v[a, 0] * q0 + v[b, 0] * q1 + v[c, 0] * q2)
    vy = eye[1] - (v[a, 1] * q0 + v[b, 1] * q1 + v[c, 1] * q2)
    vz = eye[2] - (v[a, 2] * q0 + v[b, 2] * q1 + v[c, 2] * q2)
    k = 1 / math.sqrt(vx * vx + vy * vy + vz * vz + 1e-12)
    vx *= k
    vy *= k
    vz *= k
    k = 1 / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
    nx *= k
    ny *= k
    nz *= k
    nv = nx * vx + ny * vy + nz * vz
    if nv < 0 and kind[m] != SURFACE:
        nx = -nx
        ny = -ny
        nz = -nz
        nv = -nv
    nv = max(nv, 0.02)
    e0 = e[a, 0] * q0 + e[b, 0] * q1 + e[c, 0] * q2
    e1 = e[a, 1] * q0 + e[b, 1] * q1 + e[c, 1] * q2
    e2 = e[a, 2] * q0 + e[b, 2] * q1 + e[c, 2] * q2
    open_sky = min(1.0, max(0.0, (e0 + e1 + e2) * 0.4))
    fresnel = 1 - nv
    fresnel = fresnel * fresnel * fresnel * fresnel * fresnel
    rx = 2 * nv * nx - vx
    ry = 2 * nv * ny - vy
    rz = 2 * nv * nz - vz
    if kind[m] == CLEAR:
        f = 0.03 + 0.97 * fresnel
        _environment(env_map, rx, ry, rz, env)
        # roughness here: the part of the mirror image that lids and lashes hide
        g = f * min(1.0, open_sky * 1.5) * min(1.0, 1.06 - rough[m])
        h = rx * key[0] + ry * key[1] + rz * key[2]
        h = h**180 * 14 if h > 0.95 else 0.0
        dark = 1 - spec[m]  # tinted lenses: what does not pass, and shows the tint a little
        for k in range(3):
            col[k] = (env[k] + h * key[3 + k]) * g + 0.5 * dark * tint[m, k]
        col[3] = f * 0.6
        if dark > 0:
            col[3] += dark * (1 - col[3])
        return
    texel[0] = 1.0
    texel[1] = 1.0
    texel[2] = 1.0
    i = 0
    if levels[m] > 0:
        tu = uv[a, 0] * q0 + uv[b, 0] * q1 + uv[c, 0] * q2
        tv = uv[a, 1] * q0 + uv[b, 1] * q1 + uv[c, 1] * q2
        i = mip_level(uv, p, a, b, c, width[m, 0], height[m, 0], levels[m])
        sample_texture(tex, offset[m, i], width[m, i], height[m, i], tu, tv, texel)
    shine = spec[m]
    if (
        bump[m] > 0 and i < 2
    ):  # the height in the picture's fourth channel bends the normal (Blinn 1978)
        du = 1.0 / width[m, i]
        dv = 1.0 / height[m, i]
        sample_texture(tex, offset[m, i], width[m, i], height[m, i], tu + du, tv, env)
        hu = (env[3] - texel[3]) / du * bump[m]
        sample_texture(tex, offset[m, i], width[m, i], height[m, i], tu, tv + dv, env)
        hv = (env[3] - texel[3]) / dv * bump[m]
        sx = hu * u_slope[t, 0] + hv * v_slope[t, 0]
        sy = hu * u_slope[t, 1] + hv * v_slope[t, 1]
        sz = hu * u_slope[t, 2] + hv * v_slope[t, 2]
        k = math.sqrt(sx * sx + sy * sy + sz * sz)
        k = 1 / max(1.0, k / 0.7)
        _sh9_diffuse(sh, nx, ny, nz, env)
        f0 = max(env[0], 1e-3)
        f1 = max(env[1], 1e-3)
        f2 = max(env[2], 1e-3)
        nx -= sx * k
        ny -= sy * k
        nz -= sz * k
        k = 1 / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
        nx *= k
        ny *= k
        nz *= k
        _sh9_diffuse(sh, nx, ny, nz, env)
        e0 *= min(1.7, max(0.4, env[0] / f0))
        e1 *= min(1.7, max(0.4, env[1] / f1))
        e2 *= min(1.7, max(0.4, env[2] / f2))
        nv = max(nx * vx + ny * vy + nz * vz, 0.02)
        rx = 2 * nv * nx - vx
        ry = 2 * nv * ny - vy
        rz = 2 * nv * nz - vz
    if bump[m] > 0:
        shine *= gloss[a] * q0 + gloss[b] * q1 + gloss[c] * q2
    if kind[m] == STRAND:
        c0 = tint[m, 0] * texel[0]
        c1 = tint[m, 1] * texel[1]
        c2 = tint[m, 2] * texel[2]
        # the highlight is spread along the strand: look across it
        d = (rx * tangent[t, 0] + ry * tangent[t, 1] + rz * tangent[t, 2]) * 0.7
        hx = rx - tangent[t, 0] * d
        hy = ry - tangent[t, 1] * d
        hz = rz - tangent[t, 2] * d
        k = 1 / math.sqrt(hx * hx + hy * hy + hz * hz + 1e-9)
        _sh9(sh, hx * k, hy * k, hz * k, env)
        g = spec[m] * open_sky * math.sqrt(nv)
        col[0] = c0 * e0 + (0.02 + 0.22 * c0) * g * env[0]
        col[1] = c1 * e1 + (0.02 + 0.22 * c1) * g * env[1]
        col[2] = c2 * e2 + (0.02 + 0.22 * c2) * g * env[2]
        return
    f = shine * (0.03 + 0.45 * fresnel * (1 - rough[m])) * open_sky
    _sh9(sh, rx, ry, rz, env)
    h = rx * key[0] + ry * key[1] + rz * key[2]
    if h > 0.55:
        h = h ** (4 + 30 * (1 - rough[m]) ** 2) * 1.2 * max(0.0, open_sky - 0.15)
        for k in range(3):
            env[k] += h * key[3 + k]
    col[0] = texel[0] * tint[m, 0] * e0 + f * env[0]
    col[1] = texel[1] * tint[m, 1] * e1 + f * env[1]
    col[2] = texel[2] * tint[m, 2] * e2 + f * env[2]


@nb.njit(**FAST)
def _display(x):
    """Linear to display sRGB 0..255, with soft highlights."""
    x = max(x, 0.0)
    x = x / (1 + 0.25 * x) * 1.12
    return np.uint8(min(255.0, x ** (1 / 2.2) * 255 + 0.5))


@nb.njit(**FAST)
def resolve(ss, buffers, p, scene, look, light, classes, eye, rgba, labels, depth):
    """Samples [S, S] to pixels [H, W], S = H * ss.

    rgba uint8 [H, W, 4] straight alpha, display sRGB; labels uint8 [H, W] the class that covers
    most; depth float32 [H, W] along z of the first surface where alpha passes 0.5, 0 where none.
    """
    zb, ib, b1, b2, count, fz, fi, f1, f2, fa = buffers
    mat = scene[5]
    kind = look[0]
    texel = np.zeros(4, np.float32)
    env = np.zeros(3, np.float32)
    col = np.zeros(4, np.float32)
    share = np.zeros(8, np.float32)
    near = np.zeros(ss * ss, np.float32)
    k_sum = 1.0 / (ss * ss)
    for y in range(rgba.shape[0]):
        for x in range(rgba.shape[1]):
            plain = True  # one surface, nothing transparent: a single sample will do
            m0 = -2
            z0 = np.float32(0)
            for sy in range(ss):
                for sx in range(ss):
                    i = y * ss + sy
                    j = x * ss + sx
                    t = ib[i, j]
                    m = mat[t] if t >= 0 else -1
                    if m0 == -2:
                        m0 = m
                        z0 = zb[i, j]
                    if count[i, j] > 0 or m != m0 or abs(zb[i, j] - z0) > 0.004 * z0:
                        plain = False
            if plain:
                if m0 < 0:
                    rgba[y, x, :] = 0
                    labels[y, x] = BACKGROUND
                    depth[y, x] = 0
                    continue
                i = y * ss + ss // 2
                j = x * ss + ss // 2
                _shade(ib[i, j], b1[i, j], b2[i, j], p, scene, look, light, eye, texel, env, col)
                for k in range(3):
                    rgba[y, x, k] = _display(col[k])
                rgba[y, x, 3] = 255
                labels[y, x] = classes[m0]
                z = 0.0
                for sy in range(ss):
                    for sx in range(ss):
                        z += zb[y * ss + sy, x * ss + sx]
                depth[y, x] = 1 / (z * k_sum)
                continue
            r_sum = g_sum = b_sum = a_sum = 0.0
            share[:] = 0
            hits = 0
            for sy in range(ss):
                for sx in range(ss):
                    i = y * ss + sy
                    j = x * ss + sx
                    through = 1.0
                    r = g = b = 0.0
                    z = np.float32(0)
                    for k in range(count[i, j]):
                        t = fi[i, j, k]
                        w1 = f1[i, j, k]
                        w2 = f2[i, j, k]
                        _shade(t, w1, w2, p, scene, look, light, eye, texel, env, col)
                        if kind[mat[t]] == CLEAR:
                            alpha = col[3]
                            w = 1.0
                        else:
                            alpha = fa[i, j, k]
                            w = alpha
                        r += through * w * col[0]
                        g += through * w * col[1]
                        b += through * w * col[2]
                        share[classes[mat[t]]] += through * alpha
                        through *= 1 - alpha
                        if z == 0 and through <= 0.5:
                            z = fz[i, j, k]
                        if through < OPAQUE_AT:
                            break
                    t = ib[i, j]
                    if through >= OPAQUE_AT and t >= 0:
                        _shade(t, b1[i, j], b2[i, j], p, scene, look, light, eye, texel, env, col)
                        r += through * col[0]
                        g += through * col[1]
                        b += through * col[2]
                        share[classes[mat[t]]] += through
                        through = 0.0
                        if z == 0:
                            z = zb[i, j]
                    if through < OPAQUE_AT:
                        through = 0.0
                    w = min(1.0, 4 / max(1.0, r, g, b))  # fireflies
                    r_sum += r * w
                    g_sum += g * w
                    b_sum += b * w
                    a_sum += 1 - through
                    if z > 0:
                        near[hits] = z
                        hits += 1
            if a_sum > 1e-3:
                rgba[y, x, 0] = _display(r_sum / a_sum)
                rgba[y, x, 1] = _display(g_sum / a_sum)
                rgba[y, x, 2] = _display(b_sum / a_sum)
            else:
                rgba[y, x, :3] = 0
            a = a_sum * k_sum
            rgba[y, x, 3] = np.uint8(a * 255 + 0.5)
            share[BACKGROUND] = (1 - a) * ss * ss
            best = 0
            for k in range(1, 5):
                if share[k] > share[best]:
                    best = k
            labels[y, x] = best
            depth[y, x] = 0
            if a >= 0.5 and hits > 0:  # mean of the samples on the front surface
                front = near[0]
                for k in range(1, hits):
                    front = max(front, near[k])
                z_sum = 0.0
                n = 0
                for k in range(hits):
                    if near[k] > 0.99 * front:
                        z_sum += near[k]
                        n += 1
                depth[y, x] = n / z_sum
