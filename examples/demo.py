"""What `make demo` runs: the whole way from a photo to a .blend, as a user of Blender goes it.

    python examples/demo.py [--photo PHOTO] [--out FOLDER] [--preset fast|balanced|best]

Builds the slim extension, installs and enables it in a fresh Blender profile through Blender's own
installer, runs the operator, and leaves in the folder: head.blend, head.glb, sheet.png,
report.json. Blender is the module bpy of the Python that runs this.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "bl_ext.user_default.triplane"
MASK_SIZE = 512  # longest side of the renders whose outlines are compared, pixels


class Demo:
    """The steps, and the report they write."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.report: dict = {"seconds": {}, "bytes": {}, "versions": {}, "figures": {}}
        self.begun = time.perf_counter()

    @contextlib.contextmanager
    def step(self, name: str):
        """Tell of a step, and note in the report how long it took."""
        print(f"[{time.perf_counter() - self.begun:6.1f} s] {name} ...", flush=True)
        start = time.perf_counter()
        yield
        self.report["seconds"][name] = round(time.perf_counter() - start, 2)

    def wrote(self, *names: str) -> None:
        for name in names:
            self.report["bytes"][name] = (self.out / name).stat().st_size

    def finish(self) -> None:
        self.report["seconds"]["all"] = round(time.perf_counter() - self.begun, 2)
        # ru_maxrss is in KiB on Linux, in bytes on macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        for who, kind in (("blender", resource.RUSAGE_SELF), ("engine", resource.RUSAGE_CHILDREN)):
            used = resource.getrusage(kind)
            self.report.setdefault("peak_memory_bytes", {})[who] = used.ru_maxrss * unit
            # Of all cores; more than the elapsed time where several worked, less where others did.
            spent = round(used.ru_utime + used.ru_stime, 1)
            self.report.setdefault("processor_seconds", {})[who] = spent
        path = self.out / "report.json"
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(self.report, indent=2) + "\n")
        os.replace(partial, path)


def build_extension(folder: Path) -> Path:
    """The slim .zip, made by the project's own builder."""
    command = [sys.executable, str(ROOT / "wheels" / "build.py"), "--torch", "none"]
    done = subprocess.run(
        [*command, "--platform", this_platform(), "--out", str(folder)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr.strip())
    return next(folder.glob("*.zip"))


def this_platform() -> str:
    """Blender's name of this machine's platform."""
    system = {"linux": "linux", "win32": "windows", "darwin": "macos"}[sys.platform]
    arm = platform.machine().lower() in {"arm64", "aarch64"}
    return f"{system}-{'arm64' if arm else 'x64'}"


def install(package: Path) -> None:
    """Install and enable the extension as Preferences > Add-ons > Install from Disk does."""
    import bpy

    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.preferences.filepaths.save_version = 0  # no head.blend1 when run again
    with contextlib.redirect_stdout(io.StringIO()):
        bpy.ops.extensions.package_install_files(
            filepath=str(package), repo="user_default", enable_on_install=True
        )
    if PACKAGE not in bpy.context.preferences.addons:
        raise SystemExit("Blender did not install the extension.")
    bpy.context.preferences.addons[PACKAGE].preferences.python = sys.executable


def save(out: Path) -> None:
    """The .blend, opened as one would see it: through the photo's camera, with the photo behind."""
    import bpy

    bpy.ops.triplane.view_photo()
    bpy.ops.wm.save_as_mainfile(filepath=str(out / "head.blend"), compress=True)
    bpy.ops.export_scene.gltf(
        filepath=str(out / "head.glb"), use_selection=True, export_cameras=False, export_yup=True
    )


def outline_agreement() -> float:
    """Intersection over union of two outlines through the photo's camera: Blender's render of the
    mesh, and the engine's render of the field."""
    import bpy
    import numpy as np

    render = bpy.context.scene.render
    scale = MASK_SIZE / max(render.resolution_x, render.resolution_y)
    render.resolution_x = round(render.resolution_x * scale)
    render.resolution_y = round(render.resolution_y * scale)
    bpy.ops.triplane.render_field(size=MASK_SIZE)
    field = next(i for i in bpy.data.images if i.name.endswith("field render"))
    render.engine = "CYCLES"
    bpy.context.scene.cycles.samples = 8
    bpy.context.scene.cycles.use_denoising = False
    bpy.context.scene.cycles.max_bounces = 0
    render.film_transparent = True
    render.image_settings.file_format = "PNG"
    render.image_settings.color_mode = "RGBA"
    with tempfile.TemporaryDirectory() as folder:
        render.filepath = os.path.join(folder, "mesh.png")
        with quiet():
            bpy.ops.render.render(write_still=True)
        mesh = bpy.data.images.load(render.filepath)
        masks = []
        for image in (mesh, field):
            pixels = np.empty(image.size[0] * image.size[1] * 4, np.float32)
            image.pixels.foreach_get(pixels)
            masks.append(pixels.reshape(image.size[1], image.size[0], 4)[..., 3] > 0.5)
    return float((masks[0] & masks[1]).sum() / max(1, (masks[0] | masks[1]).sum()))


@contextlib.contextmanager
def quiet():
    """Nothing on standard output: Blender's renderer writes a line a sample there."""
    sys.stdout.flush()
    saved, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)
        os.close(nowhere)


def sheet(head, out: Path, folder: Path) -> None:
    """sheet.png: the photo beside renders of the head's mesh and of its field, all three as they
    are kept in the .blend."""
    import bpy
    import numpy as np

    data = head.data
    vertices = np.empty(3 * len(data.vertices), np.float32)
    data.vertices.foreach_get("co", vertices)
    faces = np.empty(len(data.loops), np.int32)
    data.loops.foreach_get("vertex_index", faces)
    uvs = np.empty(2 * len(data.loops), np.float32)
    data.uv_layers[0].uv.foreach_get("vector", uvs)
    texture = data.materials[0].node_tree.nodes.active.image
    pixels = np.empty(4 * texture.size[0] * texture.size[1], np.float32)
    texture.pixels.foreach_get(pixels)
    pixels = pixels.reshape(texture.size[1], texture.size[0], 4)[::-1, :, :3]
    # Back from the object's space, which the artist sees, to the field's.
    matrix = np.linalg.inv(np.array(head["triplane_field_to_object"]).reshape(4, 4))
    np.savez(
        folder / "mesh.npz",
        vertices=(vertices.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32),
        faces=faces.reshape(-1, 3),
        uvs=uvs.reshape(-1, 3, 2),
        texture=(pixels * 255 + 0.5).astype(np.uint8),
    )
    bpy.ops.triplane.save_field(filepath=str(folder / "field.safetensors"))
    photo = next(c for c in head.children if c.type == "CAMERA").data.background_images[0].image
    (folder / "photo.png").write_bytes(photo.packed_file.data)
    (folder / "camera.json").write_text(head["triplane_camera"])
    # In a process of its own: Blender's loads no torch.
    command = [sys.executable, str(ROOT / "examples" / "sheet.py"), str(folder)]
    done = subprocess.run([*command, str(out / "sheet.png")], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"sheet.png could not be drawn: {done.stderr.strip()}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", type=Path, default=ROOT / "examples" / "astronaut.png")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "demo")
    parser.add_argument("--preset", default="balanced", choices=("fast", "balanced", "best"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--extension", type=Path, help="an extension .zip that was built before")
    options = parser.parse_args()
    photo, out = options.photo.resolve(), options.out.resolve()
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"The folder {out} cannot be made: {error.strerror}.") from None
    folder = Path(tempfile.mkdtemp(prefix="triplane-demo-"))
    demo = Demo(out)
    try:
        return run(demo, options, photo, out, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(demo: Demo, options, photo: Path, out: Path, folder: Path) -> int:
    with demo.step("building the extension"):
        package = options.extension or build_extension(folder)
    with demo.step("starting Blender and installing the extension"):
        os.environ["BLENDER_USER_RESOURCES"] = str(folder / "profile")
        (folder / "profile" / "extensions").mkdir(parents=True)
        import bpy

        install(package)
    with demo.step("reconstructing the head"):
        try:
            bpy.ops.triplane.reconstruct_head(
                filepath=str(photo), preset=options.preset, seed=options.seed
            )
        except RuntimeError as error:
            print(str(error).removeprefix("Error: ").strip(), file=sys.stderr)
            return 1
    head = bpy.context.active_object
    record = json.loads(head["triplane_record"])
    with demo.step("saving head.blend and head.glb"), quiet():
        save(out)
    demo.wrote("head.blend", "head.glb")
    with demo.step("making sheet.png"):
        sheet(head, out, folder)
    demo.wrote("sheet.png")
    with demo.step("comparing the outlines of mesh and field in Blender"):
        agreement = outline_agreement()

    demo.report["photo"] = photo.name
    demo.report["preset"], demo.report["seed"] = options.preset, options.seed
    demo.report["reconstruction_seconds"] = record.get("timings", {})
    demo.report["figures"] |= record.get("figures", {})
    demo.report["figures"] |= {
        "faces": len(head.data.polygons),
        "height_m": round(head.dimensions.z, 4),
        "outline_iou_blender_mesh_vs_field": round(agreement, 4),
    }
    demo.report["bytes"]["extension"] = package.stat().st_size
    demo.report["versions"] |= record.get("versions", {}) | {
        "blender": bpy.app.version_string,
        "python": platform.python_version(),
    }
    bpy.ops.preferences.addon_disable(module=PACKAGE)  # ends the engine, so that it is counted
    demo.finish()
    print(f"\nIn {out}:")
    for name, size in demo.report["bytes"].items():
        if name != "extension":
            print(f"  {name:12} {size / 1e6:8.2f} MB")
    shown = ("photo_psnr_db", "silhouette_iou", "outline_iou_blender_mesh_vs_field", "faces")
    figures = {key: demo.report["figures"].get(key) for key in shown}
    print(f"  report.json  {json.dumps(figures)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
