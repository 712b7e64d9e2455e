"""One side of lrm.py, in a process of its own: `lrm_side.py SIDE MODEL FOLDER PARITY ROUNDS PATH`.

SIDE: prepare (writes FOLDER's files), ours (the default precision), ours-float32 or original;
MODEL: triposr or openlrm; PATH: the original's repository. Prints one JSON object: lists of
[seconds, processor seconds] a row, peak resident memory in MB. Writes FOLDER/<side>-<model>.npz,
so that results can be compared.
"""

from __future__ import annotations

import importlib.util
import json
import resource
import sys
import time
import types
from functools import partial
from pathlib import Path

import numpy as np

SIZE = 256  # nodes along a mesh's grid
FRAME = 288  # OpenLRM base's own frames


def peak() -> float:
    """Peak resident memory of this process so far, in MB (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(function, repeats: int = 1) -> tuple[list[list[float]], object]:
    """[seconds, processor seconds] of each call, and the last result."""
    found, out = [], None
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        out = function()
        found.append([time.perf_counter() - start, time.process_time() - used])
    return found, out


def seeded(parity: Path):
    spec = importlib.util.spec_from_file_location("seeded", parity / "seeded_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def picture(parity: Path, model: str) -> np.ndarray:
    """The pack's picture on the model's background: float32 [S, S, 3]."""
    from PIL import Image

    rgba = np.asarray(Image.open(parity / model / "input.png")).astype(np.float32) / 255
    if model == "openlrm":
        return rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
    grey = rgba[..., :3] * rgba[..., 3:] + 0.5 * (1 - rgba[..., 3:])
    return (grey * 255).astype(np.uint8).astype(np.float32) / 255


def prepare(model: str, folder: Path, parity: Path) -> dict:
    """The published files, and our model file made of them."""
    from engine.checkpoints.add import add_model

    module = seeded(parity)
    spec = module.load_spec(parity / model)
    facts = {}
    published = folder / f"{model}.safetensors"
    module.write_safetensors(published, spec)
    if model == "triposr":
        import torch
        from safetensors.torch import load_file

        torch.save(load_file(published), folder / "model.ckpt")
        published.unlink()
        published = folder / "model.ckpt"
        (folder / "config.yaml").write_text(json.dumps(spec["config"]))  # JSON is YAML
    start = time.perf_counter()
    add_model(published, model, folder / "models")
    return facts | {"add": time.perf_counter() - start, "memory_add": peak()}


def ours(model: str, folder: Path, parity: Path, rounds: int, full: bool) -> tuple[dict, dict]:
    """full: in float32, the scene code alone; else everything, in the default precision."""
    import torch

    from engine import device, memory
    from engine.surface import isosurface
    from engine.systems.lrm.open import close_lrm, open_lrm

    memory.keep_freed()  # as our worker and command line do
    image = torch.from_numpy(picture(parity, model)).permute(2, 0, 1)
    default = device.choose_precision(torch.device("cpu"))
    name, dtype = ("float32", torch.float32) if full else ("default", default)
    facts: dict = {"precision": str(default).removeprefix("torch.")}
    path = folder / "models" / f"{model}.safetensors"
    compute = device.Compute(torch.device("cpu"), dtype)
    facts[f"open_{name}"], made = timed(partial(open_lrm, path, compute))
    facts[f"code_{name}"], field = timed(partial(made.field, image), rounds)
    facts[f"memory_{name}"] = peak()
    results = {f"code_{name}": field.planes.numpy()}
    if full:
        return facts, results
    del made
    close_lrm()
    memory.give_back()
    facts["mesh"], mesh = timed(partial(isosurface.extract, field, SIZE))
    facts["memory_mesh"] = peak()
    results |= {"vertices": len(mesh.vertices), "faces": len(mesh.faces)}
    if model == "openlrm":
        facts["frame"], _ = timed(partial(field.render, field.input_camera(FRAME)))
        facts["memory_frame"] = peak()
    return facts, results


def original(model: str, folder: Path, parity: Path, rounds: int, path: str) -> tuple[dict, dict]:
    sys.path.insert(0, path)
    import torch

    torch.set_grad_enabled(False)
    _stand_in()
    run = _triposr if model == "triposr" else _openlrm
    return run(torch, folder, parity, rounds)


def _triposr(torch, folder: Path, parity: Path, rounds: int) -> tuple[dict, dict]:
    import tsr.models.tokenizers.image as tokenizer

    spec = seeded(parity).load_spec(parity / "triposr")
    (folder / "vit").mkdir(exist_ok=True)
    (folder / "vit" / "config.json").write_text(json.dumps(spec["vit_config"]))
    tokenizer.hf_hub_download = lambda **_: str(folder / "vit" / "config.json")
    from tsr.system import TSR

    facts: dict = {}
    files = str(folder), "config.yaml", "model.ckpt"
    facts["open"], model = timed(partial(TSR.from_pretrained, *files))
    model.renderer.set_chunk_size(8192)  # its script's default
    image = (picture(parity, "triposr") * 255 + 0.5).astype(np.uint8)
    from PIL import Image

    facts["code"], code = timed(lambda: model([Image.fromarray(image)], device="cpu"), rounds)
    facts["memory_code"] = peak()
    facts["mesh"], meshes = timed(lambda: model.extract_mesh(code, True, resolution=SIZE))
    facts["memory_mesh"] = peak()
    counts = {"vertices": len(meshes[0].vertices), "faces": len(meshes[0].faces)}
    return facts, {"code": code[0].numpy(), **counts}


def _openlrm(torch, folder: Path, parity: Path, rounds: int) -> tuple[dict, dict]:
    import mcubes
    from accelerate import PartialState

    PartialState()  # its loggers ask for it
    from openlrm.models.encoders import dinov2_wrapper
    from openlrm.models.modeling_lrm import ModelLRM
    from safetensors.torch import load_file
    from torch.nn.functional import interpolate

    build = dinov2_wrapper.Dinov2Wrapper._build_dinov2
    dinov2_wrapper.Dinov2Wrapper._build_dinov2 = staticmethod(partial(build, pretrained=False))
    spec = seeded(parity).load_spec(parity / "openlrm")
    with np.load(parity / "openlrm" / "reference.npz") as data:
        camera, views = (torch.from_numpy(data[k]) for k in ("source_camera", "render_cameras"))

    def opened():
        model = ModelLRM(**spec["config"]).eval()
        model.load_state_dict(load_file(folder / "openlrm.safetensors"))
        return model

    facts: dict = {}
    facts["open"], model = timed(opened)

    def code():
        image = torch.from_numpy(picture(parity, "openlrm")).permute(2, 0, 1)[None]
        image = interpolate(image, (336, 336), mode="bicubic", align_corners=True)
        return model.forward_planes(image.clamp(0, 1), camera)

    facts["code"], planes = timed(code, rounds)
    facts["memory_code"] = peak()

    def mesh():
        grid = model.synthesizer.forward_grid(planes, SIZE)
        made = mcubes.marching_cubes(grid["sigma"][0, ..., 0].numpy(), 3.0)
        points = torch.from_numpy(made[0] / (SIZE - 1) * 2 - 1).float()[None]
        model.synthesizer.forward_points(planes, points)
        return made

    facts["mesh"], (vertices, faces) = timed(mesh)
    facts["memory_mesh"] = peak()
    anchors, one = torch.zeros(1, 1, 2), torch.ones(1, 1, 1)
    facts["frame"], _ = timed(
        lambda: model.synthesizer(planes, views[None, :1], anchors, one * FRAME, one, FRAME)
    )
    facts["memory_frame"] = peak()
    return facts, {"code": planes[0].numpy(), "vertices": len(vertices), "faces": len(faces)}


def _stand_in() -> None:
    """Empty modules for what the originals import and this does not use; PyMCubes for
    torchmcubes, whose vertices have their coordinates the other way round."""
    for name in ("rembg", "imageio", "torchmcubes"):
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = types.ModuleType(name)
    if not hasattr(sys.modules.get("torchmcubes"), "marching_cubes"):
        import mcubes
        import torch

        def marching_cubes(level, at):
            vertices, faces = mcubes.marching_cubes(level.numpy(), at)
            reversed_axes = np.ascontiguousarray(vertices[:, ::-1], np.float32)
            return torch.from_numpy(reversed_axes), torch.from_numpy(faces.astype(np.int64))

        sys.modules["torchmcubes"].marching_cubes = marching_cubes


def main() -> None:
    side, model, folder, parity, rounds = sys.argv[1:6]
    place, packs = Path(folder), Path(parity)
    if side != "original":
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    if side == "prepare":
        print(json.dumps(prepare(model, place, packs)))
        return
    if side.startswith("ours"):
        full = side == "ours-float32"
        facts, results = ours(model, place, packs, int(rounds), full)
    else:
        facts, results = original(model, place, packs, int(rounds), sys.argv[6])
    np.savez(place / f"{side}-{model}.npz", **results)
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
