"""Files that people have become models: training pickles, torch.save's files, .safetensors."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import checkpoint_files as files
import numpy as np
import pytest
import safetensors.torch
import torch

from engine.checkpoints import add, registry
from engine.checkpoints.add import add_model
from engine.checkpoints.open import close_models, open_model
from engine.errors import Cancelled, ParameterError, WeightsError

PARITY = Path(__file__).resolve().parents[2] / "shared" / "parity"
needs_pack = pytest.mark.skipif(
    not (PARITY / "official_like_pickle.py").is_file(),
    reason=f"the parity pack is not there: {PARITY}",
)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return files.weights()


@pytest.fixture
def models(tmp_path, monkeypatch) -> Path:
    """A models folder, not made yet; the current folder is an empty one."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    yield tmp_path / "models"
    assert list(here.iterdir()) == [], "something was executed"
    close_models()


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def same(model: torch.nn.Module, weights: dict[str, torch.Tensor], but: tuple = ()) -> None:
    state = model.state_dict()
    assert set(state) == set(weights)
    for name, tensor in weights.items():
        assert name in but or torch.equal(state[name], tensor), name


def test_a_training_pickle(tmp_path, models, weights):
    path = write(tmp_path, "cars-128.pkl", files.training_pickle(weights))
    steps = []
    info = add_model(path, folder=models, progress=lambda f, step: steps.append((f, step)))
    assert (info.name, info.resolution, info.system) == ("cars-128", 128, "eg3d")
    assert info.noncommercial and "NVIDIA" in info.licence and info.source_file == path.name
    assert not info.broken and [p.name for p in models.iterdir()] == ["cars-128.safetensors"]
    assert steps == sorted(steps, key=lambda s: s[0]) and len({s for _, s in steps}) > 3
    model = open_model(info.path)
    same(model, weights)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert open_model(info.path) is model
    ws = model.mapping(torch.randn(1, 8), torch.zeros(1, 25))
    assert torch.isfinite(model.planes(ws)).all()


def test_the_record_of_a_training_pickle(tmp_path, models, weights):
    """The object's settings win over those of its constructor, positional arguments have names."""
    newer = files.RENDERING | {"depth_resolution": 96}
    kwargs = {k: v for k, v in files.INIT.items() if k not in ("z_dim", "c_dim")}
    changes = {
        "rendering_kwargs": newer,
        "neural_rendering_resolution": 32,
        "_init_args": (8, 25),
        "_init_kwargs": kwargs,
    }
    data = files.training_pickle(weights, changes=changes)
    info = add_model(write(tmp_path, "a.pkl", data), "cars", models, metres=5.0, licence="CC0")
    head = registry.header.read_header(info.path)
    record = json.loads(head.metadata["model"])
    assert record["init_kwargs"] == files.INIT
    assert record["rendering_kwargs"] == newer and record["neural_rendering_resolution"] == 32
    assert record["plane_axes"] == files.AXES and record["metres_per_unit"] == 5.0
    assert (record["licence"], record["noncommercial"]) == ("CC0", False)
    assert record["source"]["bytes"] == len(data) and len(record["source"]["sha256"]) == 64
    registry.verify(info.path)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_every_protocol(tmp_path, models, weights, protocol):
    data = files.training_pickle(weights, protocol)
    same(open_model(add_model(write(tmp_path, "a.pkl", data), folder=models).path), weights)


def test_buffers_that_do_not_last_are_left_out(tmp_path, models, weights):
    with files.original_classes():
        network = files.generator(weights)
        network.state["_buffers"]["grid"] = torch.zeros(4)
        network.state["_buffers"]["nothing"] = None
        network.state["_non_persistent_buffers_set"] = {"grid"}
        data = files.saved(network)
    same(open_model(add_model(write(tmp_path, "a.pt", data), folder=models).path), weights)


def test_without_the_label_deviation(tmp_path, models, weights):
    fewer = {k: v for k, v in weights.items() if k != "dataset_label_std"}
    path = write(tmp_path, "a.pkl", files.training_pickle(fewer))
    model = open_model(add_model(path, folder=models).path)
    same(model, weights, but=("dataset_label_std",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_network_saved_alone(tmp_path, models, weights, zipped):
    """As fine-tuning scripts do it: torch.save of the object."""
    with files.original_classes():
        data = files.saved(files.generator(weights), zipped)
    same(open_model(add_model(write(tmp_path, "tuned.pt", data), folder=models).path), weights)


def half(tensors):
    return {k: v.half() if v.ndim > 1 else v.double() for k, v in tensors.items()}


STATE_DICTS = {
    "plain": lambda w: w,
    "nested": lambda w: {"step": 7, "lr": 0.1, "G_ema": w},
    "the average of two": lambda w: {"G": {k: v + 1 for k, v in w.items()}, "G_ema": w},
    "prefixed": lambda w: {"state_dict": {f"module.g_ema.{k}": v for k, v in w.items()}},
    "half and double": half,
    "bfloat16": lambda w: {k: v.bfloat16() for k, v in w.items()},
    "views": lambda w: {k: torch.stack([v, v], -1)[..., 1] for k, v in w.items()},
    "parameters": lambda w: {k: torch.nn.Parameter(v) for k, v in w.items()},
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", STATE_DICTS)
def test_state_dicts(tmp_path, models, weights, kind, zipped):
    value = STATE_DICTS[kind](weights)
    path = write(tmp_path, "a.pth", files.saved(value, zipped))
    with add.opened(path) as (handle, data):
        source = add.read_source(handle, data)
        tensors = add.read_tensors(source.tensors, len(data))
    given = {"half and double": half, "bfloat16": STATE_DICTS["bfloat16"]}.get(kind, dict)(weights)
    assert set(tensors) == set(weights)
    for name, tensor in given.items():
        assert np.array_equal(tensors[name], tensor.float().numpy()), name
    init = dict(source.record["init_kwargs"])
    assert init == {k: v for k, v in files.INIT.items() if k != "rendering_kwargs"}
    assert source.record["rendering_kwargs"] == files.RENDERING


def test_a_state_dict_with_version_numbers(tmp_path, models, weights):
    """state_dict() of a module is an ordered dictionary with an attribute."""
    module = torch.nn.Module()
    module.load_state_dict({})
    state = module.state_dict()
    state.update(weights)
    assert state._metadata is not None
    info = add_model(write(tmp_path, "a.ckpt", files.saved(state)), folder=models)
    same(open_model(info.path), weights)


def test_safetensors_and_our_own_again(tmp_path, models, weights):
    data = safetensors.torch.save({f"G_ema.{k}": v for k, v in weights.items()})
    first = add_model(write(tmp_path, "w.safetensors", data), "first", models, metres=4.5)
    again = add_model(first.path, "again", models)
    same(open_model(again.path), weights)
    one, two = (registry.header.read_header(m.path).metadata for m in (first, again))
    assert one["sha256"] == two["sha256"] and one["model"] == two["model"]
    with pytest.raises(WeightsError, match="damaged"):
        broken = bytearray(first.path.read_bytes())
        broken[-5] ^= 1
        add_model(write(tmp_path, "b.safetensors", bytes(broken)), "b", models)


@pytest.mark.parametrize(("like", "near"), [("", 0.1), ("cars", 0.1), ("cats", 2.25)])
def test_like_chooses_the_cameras(tmp_path, models, weights, like, near):
    path = write(tmp_path, "a.pt", files.saved(weights))
    with add.opened(path) as (handle, data):
        record = add.read_source(handle, data, like).record
    assert record["rendering_kwargs"]["ray_start"] == near
    with pytest.raises(ParameterError, match="like must be"), add.opened(path) as (handle, data):
        add.read_source(handle, data, "dogs")


def test_nothing_is_overwritten(tmp_path, models, weights):
    path = write(tmp_path, "a.pt", files.saved(weights))
    first = add_model(path, folder=models)
    before = first.path.read_bytes()
    with pytest.raises(ParameterError, match="named a already"):
        add_model(path, "a", models)
    assert add_model(path, folder=models).name == "a-2"
    assert first.path.read_bytes() == before


def test_cancelling_leaves_nothing(tmp_path, models, weights):
    path = write(tmp_path, "a.pt", files.saved(weights))
    calls, last = 0, 1 << 30

    def check():
        nonlocal calls
        calls += 1
        if calls == last:
            raise Cancelled()

    info = add_model(path, folder=models, check=check)
    info.path.unlink()
    models.rmdir()
    total = calls
    assert total > 3 * len(weights)  # read, hashed, written
    for last in (1, 5, total // 3, 2 * total // 3, total - 5, total):
        calls = 0
        with pytest.raises(Cancelled):
            add_model(path, folder=models, check=check)
        assert not models.exists(), f"check {last} of {total}"


def test_damage_after_adding(tmp_path, models, weights):
    info = add_model(write(tmp_path, "a.pt", files.saved(weights)), folder=models)
    data = bytearray(info.path.read_bytes())
    data[len(data) // 2] ^= 4
    info.path.write_bytes(data)
    for use in (registry.verify, open_model):
        with pytest.raises(WeightsError, match="damaged"):
            use(info.path)
    info.path.write_bytes(data[:-1])
    assert "damaged" in registry.describe(info.path).broken
    with pytest.raises(WeightsError, match="damaged"):
        open_model(info.path)
    info.path.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        open_model(info.path)


@needs_pack
@pytest.mark.parametrize("era", ["1.11", "2"])
@pytest.mark.parametrize("size", ["small", pytest.param("ema", marks=pytest.mark.slow)])
def test_the_packs_pickle(tmp_path, models, era, size):
    """177 tensors, as the pack's own writer put them in; nothing of the source texts is run."""
    path = tmp_path / "official.pkl"
    command = [sys.executable, str(PARITY / "official_like_pickle.py"), str(path)]
    run = subprocess.run([*command, "--size", size, "--era", era], capture_output=True)
    assert run.returncode == 0, run.stderr
    spec = importlib.util.spec_from_file_location("seeded", PARITY / "seeded_weights.py")
    seeded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(seeded)
    pack = seeded.load_spec(PARITY / "eg3d")
    with add.opened(path) as (handle, data):
        source = add.read_source(handle, data)
        tensors = add.read_tensors(source.tensors, len(data))
    assert len(tensors) == 177
    for entry in pack["tensors"]:
        key = entry["key"]
        if size == "ema":
            expected = seeded.make(entry, pack["seed"])
        elif key.endswith("resample_filter"):
            continue
        else:
            shape = tuple(min(n, 2) for n in entry["shape"])
            drawn = seeded.normals(int(np.prod(shape)), pack["seed"], f"G_ema/{key}")
            expected = drawn.reshape(shape)
        assert np.array_equal(tensors[key], expected), key
    config = pack["config"]
    assert source.record["init_kwargs"] == config["init_kwargs"]
    assert source.record["plane_axes"] == config["plane_axes"]
    assert source.record["neural_rendering_resolution"] == config["neural_rendering_resolution"]
    if size == "small":  # its tensors are cut: no model comes of it
        with pytest.raises(WeightsError, match="do not fit"):
            add_model(path, "cut", models)
        assert not models.exists()


OPEN = """
import sys, torch
from engine.checkpoints.open import open_model
open_model(sys.argv[1])
# Not ru_maxrss: a process inherits that from the one that started it, here pytest with its models.
print(next(x.split()[1] for x in open("/proc/self/status") if x.startswith("VmHWM")))
"""


@needs_pack
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
def test_memory_of_opening_the_512_model(tmp_path, models, root):
    path = tmp_path / "official.pkl"
    command = [sys.executable, str(PARITY / "official_like_pickle.py"), str(path)]
    subprocess.run(command, check=True, capture_output=True)
    info = add_model(path, "ffhq", models)
    assert info.resolution == 512
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(info.path)], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout) / 1024
    print(f"opening the 512 model: {peak:.0f} MiB in all")
    assert peak < 1200
