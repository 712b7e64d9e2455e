"""What the tests of all rooms share: where things are."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def photo() -> Path:
    """The example photo (one frontal face, 512 x 512)."""
    return ROOT / "examples" / "astronaut.png"


@pytest.fixture
def restored_process():
    """Setting up a device changes this process's threads and memory limit: other tests shall not
    notice."""
    import torch

    from engine import device

    threads = torch.get_num_threads()
    yield
    device.set_memory_limit(torch.device("cpu"), 0)
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def heads_pack() -> Path:
    """The head data pack, which training needs and the program does not: it is no part of the
    repository, so a checkout without it skips these tests and says so."""
    path = Path(os.environ.get("HEADS_PACK") or ROOT.parent / "shared" / "heads")
    if not (path / "mesh.npz").is_file():
        pytest.skip(f"no head data pack at {path} (set HEADS_PACK)")
    return path


@pytest.fixture(scope="session")
def pack(heads_pack: Path):
    """The pack itself (engine.training.heads.pack.Pack), which nobody changes."""
    from engine.training.heads.pack import Pack

    return Pack(heads_pack)


@pytest.fixture(scope="session")
def studio(pack):
    """Where its heads are pictured (engine.training.heads.scene.Studio)."""
    from engine.training.heads.scene import Studio
    from engine.training.heads.textures import Atlas

    return Studio(Atlas(pack))


@pytest.fixture(scope="session")
def pictures():
    """Two pictures [2, 3, 128, 128] of soft noise in -1..1."""
    import torch

    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, 3, 8, 8, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(coarse, (128, 128), mode="bilinear")


@pytest.fixture(scope="session")
def blender_installer() -> ModuleType:
    """The module of Blender's own extension installer, loaded without starting Blender."""
    blender = Path(importlib.util.find_spec("bpy").origin).parent
    path = next(blender.glob("*/scripts/addons_core/bl_pkg/cli/blender_ext.py"))
    spec = importlib.util.spec_from_file_location("blender_ext", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["blender_ext"] = module  # its data classes look themselves up
    spec.loader.exec_module(module)
    return module
