"""Where along a ray to look: stratified samples, then importance samples.

Source: NeRF's hierarchical sampling (Mildenhall et al. 2020) with EG3D's smoothing of the coarse
weights, number for number. Every random number is a pure function of (seed, ray, sample), so that
an image does not depend on chunks, batches, threads or the device; without a seed the middle of
every stratum is taken.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

_MASK = 0xFFFFFFFF


def _hash(x: torch.Tensor) -> torch.Tensor:
    """A 32-bit integer hash (lowbias32, public domain) of int64 numbers in 0 .. 2^32 - 1. Products
    may wrap round at 2^64, which leaves the 32 bits that are kept as they should be."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def uniforms(
    count: int, rays: torch.Tensor, seed: int | None, stream: int, jitter: bool = False
) -> torch.Tensor:
    """Uniform numbers in [0, 1), one row a ray: [R, count], float32.

    rays: [R] int64, each ray's index in its image. seed None: the deterministic rule, 0.5
    everywhere if jitter, else (i + 0.5) / count for i = 0 .. count - 1. stream: different numbers
    for different purposes.
    """
    device = rays.device
    if seed is None:
        if jitter:
            return torch.full((len(rays), count), 0.5, device=device)
        row = (torch.arange(count, device=device, dtype=torch.float32) + 0.5) / count
        return row.expand(len(rays), count)
    key = torch.tensor([(seed * 0x9E3779B9 + stream * 0x85EBCA6B) & _MASK], device=device)
    ray = _hash(_hash(key) ^ (rays & _MASK))
    i = torch.arange(count, device=device)
    bits = _hash((ray[:, None] + (i * 0x9E3779B9 & _MASK)[None]) & _MASK)
    return (bits >> 8).float() / float(1 << 24)


def stratified_depths(near: float, far: float, jitter: torch.Tensor) -> torch.Tensor:
    """Coarse depths [R, S] for jitter [R, S] in 0..1: S equal steps from near to far inclusive,
    each pushed away from the camera by jitter times the step."""
    count = jitter.shape[1]
    steps = torch.linspace(near, far, count, device=jitter.device)
    return steps + jitter * ((far - near) / (count - 1))


def importance_depths(depths: torch.Tensor, weights: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """New depths where the coarse pass found weight.

    depths: [R, S] sorted; weights: [R, S - 1] of the intervals between; u: [R, K] in 0..1.
    Returns [R, K], in u's order, without gradient. The weights are widened (largest of neighbours,
    then the mean of neighbours, + 0.01), so that thin surfaces are not missed; the first and the
    last interval take no part.
    """
    with torch.no_grad():
        w = F.max_pool1d(weights[:, None], 2, 1, padding=1)
        w = F.avg_pool1d(w, 2, 1)[:, 0] + 0.01
        middles = 0.5 * (depths[:, :-1] + depths[:, 1:])
        pdf = w[:, 1:-1] + 1e-5
        pdf = pdf / pdf.sum(1, keepdim=True)
        cdf = F.pad(pdf.cumsum(1), (1, 0))  # [R, S - 2]
        index = torch.searchsorted(cdf, u.contiguous(), right=True)
        below = (index - 1).clamp_min(0)
        above = index.clamp_max(pdf.shape[1])
        low, high = cdf.gather(1, below), cdf.gather(1, above)
        width = high - low
        width = torch.where(width < 1e-5, torch.ones_like(width), width)
        start, end = middles.gather(1, below), middles.gather(1, above)
        return start + (u - low) / width * (end - start)
