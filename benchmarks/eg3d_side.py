"""One side of eg3d.py, in a process of its own: `eg3d_side.py SIDE PARITY OUT THREADS WHAT PATH`.

Prints one JSON object: lists of seconds a row, peak memory in MB. Writes OUT/<side>.npz with the
results, so that they can be compared.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

LEVEL = 10.0
REPEATS = 3
SLAB = 1_000_000  # points a call in the original's script


def peak() -> float:
    """Peak resident memory of this process so far, in MB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(function, repeats: int = REPEATS) -> tuple[list[float], object]:
    """Seconds of each of `repeats` calls after one that does not count, and the last result."""
    seconds, out = [], function() if repeats > 1 else None
    for _ in range(repeats):
        start = time.perf_counter()
        out = function()
        seconds.append(time.perf_counter() - start)
    return seconds, out


def seeded(parity: Path):
    spec = importlib.util.spec_from_file_location("seeded", parity / "seeded_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, module.load_spec(parity / "eg3d" / "spec.json")


def inputs(parity: Path):
    import torch

    with np.load(parity / "eg3d" / "reference.npz") as data:
        ws = torch.from_numpy(data["w_psi07"])[:, None].repeat(1, 14, 1)
        return ws, torch.from_numpy(data["c"][:1]), torch.from_numpy(data["c"][1:2])


def ours(parity: Path, meshes: bool) -> tuple[dict, dict]:
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import torch

    from engine import device, memory
    from engine.surface import isosurface
    from engine.systems.eg3d.config import FFHQ512
    from engine.systems.eg3d.generator import EG3DGenerator

    memory.keep_freed()  # as our worker and command line do
    torch.set_grad_enabled(False)
    facts: dict = {"memory_start": peak()}
    module, spec = seeded(parity)
    with torch.device("meta"):
        generator = EG3DGenerator(FFHQ512).eval().requires_grad_(False)
    state = {key: torch.from_numpy(np.array(a)) for key, a in module.tensors(spec)}
    generator.load_state_dict(state, assign=True)
    generator.requires_grad_(False)
    facts["memory_model"] = peak()
    ws, camera, other = inputs(parity)
    results = {}
    default = device.choose_precision(torch.device("cpu"))
    facts["precision"] = str(default).removeprefix("torch.")
    for name, dtype in (("float32", torch.float32), ("default", default)):
        with device.Compute(torch.device("cpu"), dtype).autocast():
            facts[f"image_{name}"], views = timed(
                lambda: generator.render(generator.planes(ws), camera, ws)
            )
            results[f"image_{name}"] = views.image.float().numpy()
            fields = [generator.field(generator.planes(ws)[0])]
            facts[f"view_{name}"], views = timed(partial(generator.render, fields, other, ws))
            results[f"view_{name}"] = views.image.float().numpy()
    planes_time, planes = timed(lambda: generator.planes(ws))
    raw_time, views = timed(lambda: generator.render(fields, other))
    last_time, _ = timed(lambda: generator.superresolution(views.features, ws))
    facts["steps"] = {
        "planes (float32)": min(planes_time),
        "volume rendering": min(raw_time),
        "super-resolution (float32)": min(last_time),
    }
    facts["memory_image"] = peak()

    def mesh(size: int):
        field = generator.field(generator.planes(ws)[0])
        # As fine as the original's grid, whose voxels are 1 / (size - 1) of the box.
        voxels = float(field.bounds[1, 0] - field.bounds[0, 0]) * (size - 1)
        return isosurface.extract(field, -4 * int(-voxels // 4))

    if meshes:
        for size in (256, 512):
            facts[f"mesh{size}"], made = timed(partial(mesh, size), 2 if size == 256 else 1)
            results |= {f"mesh{size}_vertices": made.vertices, f"mesh{size}_faces": made.faces}
            facts[f"memory_mesh{size}"] = peak()
    return facts, results


def original(parity: Path, meshes: bool, path: str) -> tuple[dict, dict]:
    sys.path.insert(0, path)
    import torch

    torch.set_grad_enabled(False)
    facts: dict = {"memory_start": peak()}
    module, spec = seeded(parity)
    from training.triplane import TriPlaneGenerator

    generator = TriPlaneGenerator(**spec["config"]["init_kwargs"]).eval().requires_grad_(False)
    state = {key: torch.from_numpy(np.array(a)) for key, a in module.tensors(spec)}
    state.pop("dataset_label_std", None)
    generator.load_state_dict(state)
    facts["memory_model"] = peak()
    ws, camera, other = inputs(parity)
    size = spec["config"]["neural_rendering_resolution"]
    fix_random_numbers(torch)

    def render(c, **more):
        return generator.synthesis(
            ws, c, neural_rendering_resolution=size, noise_mode="const", **more
        )["image"]

    results = {}
    facts["image_float32"], image = timed(lambda: render(camera))
    results["image_float32"] = image.numpy()
    render(camera, cache_backbone=True)
    facts["view_float32"], image = timed(lambda: render(other, use_cached_backbone=True))
    results["view_float32"] = image.numpy()
    facts["memory_image"] = peak()
    if meshes:
        start = time.perf_counter()
        sigma = original_grid(torch, generator, ws, 256, kept=False)
        results |= original_mesh("mesh256", sigma, 256)
        facts["mesh256"] = time.perf_counter() - start
        facts["memory_mesh256"] = peak()
        # 512³: a few of its calls stand for all, marching cubes is left out.
        start = time.perf_counter()
        original_grid(torch, generator, ws, 512, kept=True, calls=4)
        facts["mesh512"] = (time.perf_counter() - start) / 4 * 512**3 / SLAB
    return facts, results


def fix_random_numbers(torch) -> None:
    """The pack's rule: jitter 0.5, importance uniforms (i + 0.5) / n."""

    def rand(*shape, device=None, **_):
        shape = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        row = (torch.arange(shape[-1], dtype=torch.float32) + 0.5) / shape[-1]
        return row.expand(*shape).contiguous()

    torch.rand = rand
    torch.rand_like = lambda x, **_: torch.full_like(x, 0.5)


def original_grid(torch, generator, ws, n: int, kept: bool, calls: int = 0):
    """Densities [n, n, n] at the original script's points (docs: parity README), in its chunks of
    a million; kept: the planes are made once and not for every chunk, as the script does."""
    planes = None
    out = torch.empty(n**3)
    for number, start in enumerate(range(0, n**3, SLAB)):
        if calls and number == calls:
            break
        flat = torch.arange(start, min(start + SLAB, n**3)).float()
        index = torch.stack([flat / n / n % n, flat / n % n, flat % n], 1)
        points = (index / (n - 1) - 0.5)[None]
        if planes is None or not kept:
            planes = generator.backbone.synthesis(ws, noise_mode="const")
            planes = planes.view(1, 3, 32, *planes.shape[-2:])
        found = generator.renderer.run_model(
            planes, generator.decoder, points, torch.zeros_like(points), generator.rendering_kwargs
        )
        out[start : start + SLAB] = found["sigma"].view(-1)
    return out.view(n, n, n)


def original_mesh(row: str, sigma, n: int) -> dict:
    """The script's marching cubes with its border, vertices where they really are (its grid is
    slightly sheared)."""
    from skimage.measure import marching_cubes

    grid = sigma.numpy()
    border = int(30 * n / 256)
    inner = np.full_like(grid, -1000)
    keep = (slice(border, -border),) * 3
    inner[keep] = grid[keep]
    v, faces, _, _ = marching_cubes(inner, level=LEVEL)
    x, y, z = v.T.astype(np.float64)
    places = np.stack([x + y / n + z / n**2, y + z / n, z], 1)
    return {
        f"{row}_vertices": (places / (n - 1) - 0.5).astype(np.float32),
        f"{row}_faces": faces.astype(np.int32),
    }


def distances(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """From points [N, 3] to the nearest of the triangles whose centres are nearest: [N]."""
    from scipy.spatial import cKDTree

    triangles = vertices[faces].astype(np.float64)
    _, near = cKDTree(triangles.mean(1)).query(points, k=8)
    best = np.full(len(points), np.inf)
    for k in range(near.shape[1]):
        best = np.minimum(best, _to_triangle(points.astype(np.float64), triangles[near[:, k]]))
    return best


def _to_triangle(p: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Distance of each point [N, 3] to its triangle [N, 3, 3]."""
    normal = np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0])
    length = np.linalg.norm(normal, axis=1)
    inside = length > 0
    best = np.full(len(p), np.inf)
    for i in range(3):
        a, b = t[:, i], t[:, (i + 1) % 3]
        edge = b - a
        share = ((p - a) * edge).sum(1) / np.maximum((edge**2).sum(1), 1e-30)
        foot = a + np.clip(share, 0, 1)[:, None] * edge
        best = np.minimum(best, np.linalg.norm(p - foot, axis=1))
        inside &= (np.cross(edge, p - a) * normal).sum(1) >= 0
    height = np.abs(((p - t[:, 0]) * normal).sum(1)) / np.maximum(length, 1e-30)
    return np.where(inside, height, best)


def components(count: int, faces: np.ndarray) -> np.ndarray:
    """Which connected component each of `count` vertices belongs to: [count]."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ends = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    links = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), (count, count))
    return connected_components(links, directed=False)[1]


def main() -> None:
    side, parity, out, threads, what, path = sys.argv[1:]
    import torch

    torch.set_num_threads(int(threads))
    if side == "ours":
        facts, results = ours(Path(parity), what == "meshes")
    else:
        facts, results = original(Path(parity), what == "meshes", path)
    if what == "meshes":
        np.savez(Path(out) / f"{side}.npz", **results)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
