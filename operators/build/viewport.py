"""A small picture of a head in a 3D view, at the place where the view shows the head."""

from __future__ import annotations

from dataclasses import dataclass

import bpy
import numpy as np

from ...engine import cameras
from . import head as heads

ROOM = 0.1  # of its size in the view, left around a head: it may grow
LEAST = 48  # pixels: a head that is seen smaller is shown in the corner
CORNER = 0.3  # of the view's smaller side, for a picture in the corner
EDGE = 12.0  # pixels from the view's edge to that picture
FRAME = (1.0, 1.0, 1.0, 0.25)


@dataclass(frozen=True)
class Place:
    """Where and how a picture belongs: area and region by their addresses, rectangle (left, lower,
    right, upper) in the region's pixels, and the view that it was made for. camera: None where the
    head is not to be seen."""

    region: int
    rectangle: tuple[float, float, float, float]
    view: tuple[float, ...]
    camera: cameras.Camera | None


def find(context_window, made: bpy.types.Object):
    """(window, area, region, region_3d) of the largest 3D view that shows the head's scene, or
    None. context_window: of the window manager's windows, the preferred one or None."""
    best, size = None, 0
    for window in bpy.context.window_manager.windows:
        if made.name not in window.scene.objects:
            continue
        for area in window.screen.areas:
            space = area.spaces.active
            if area.type != "VIEW_3D" or space.region_3d is None:
                continue
            region = next((r for r in area.regions if r.type == "WINDOW"), None)
            room = area.width * area.height * (4 if window == context_window else 1)
            if region is not None and room > size:
                best, size = (window, area, region, space.region_3d), room
    return best


def key(region, view) -> tuple[float, ...]:
    """What tells one view from another."""
    numbers = [x for row in view.perspective_matrix for x in row]
    return (*(round(x, 5) for x in numbers), float(region.width), float(region.height))


def place(region, view, made: bpy.types.Object, size: int) -> Place:
    """Where a view shows a head, and the camera, in the head's field space, that sees just that:
    size pixels a side."""
    rectangle = _rectangle(region, view, made)
    camera, world = None, heads.field_to_world(made)
    if rectangle is not None and abs(np.linalg.det(world)) > 1e-12:
        camera = seen_in(region, view, rectangle, world, size)
    return Place(region.as_pointer(), rectangle or (0, 0, 1, 1), key(region, view), camera)


def seen_in(region, view, rectangle, field_to_world: np.ndarray, size: int) -> cameras.Camera:
    """The engine's camera that sees what a view shows inside a rectangle of it; its pixels are as
    many across as down."""
    projection = np.array(view.window_matrix)
    ortho = abs(projection[3, 3] - 1) < 1e-6
    column, sign = (3, 1.0) if ortho else (2, -1.0)
    k = np.eye(3)
    k[0, 0], k[1, 1] = projection[0, 0] / 2, projection[1, 1] / 2
    k[0, 2] = 0.5 + sign * projection[0, column] / 2
    k[1, 2] = 0.5 - sign * projection[1, column] / 2
    # From the whole view to the rectangle: rows count from the top.
    left, lower, right, upper = rectangle
    span = (right - left) / region.width, (upper - lower) / region.height
    start = left / region.width, 1 - upper / region.height
    for axis in (0, 1):
        k[axis, axis] /= span[axis]
        k[axis, 2] = (k[axis, 2] - start[axis]) / span[axis]
    world = np.asarray(field_to_world, float)
    pose = np.linalg.inv(world) @ np.array(view.view_matrix.inverted())
    pose = pose @ cameras.OPENCV_TO_BLENDER_CAMERA
    unit = float(np.cbrt(abs(np.linalg.det(world[:3, :3]))))
    turn = world[:3, :3] / unit
    if np.allclose(turn @ turn.T, np.eye(3), atol=1e-4):  # else the camera keeps the stretch
        pose[:3, :3] *= unit
        if ortho:
            k[0, 0], k[1, 1] = k[0, 0] * unit, k[1, 1] * unit
    return cameras.Camera(pose, k, size, size, "viewport", ortho)


def _rectangle(region, view, made) -> tuple[float, float, float, float] | None:
    """The part of a region that shows a head, with room around; None where it is out of sight."""
    points = np.empty(3 * len(made.data.vertices), np.float32)
    made.data.vertices.foreach_get("co", points)
    points = np.c_[points.reshape(-1, 3), np.ones(len(points) // 3)]
    clip = points @ np.array(view.perspective_matrix @ made.matrix_world).T
    if not len(clip) or (clip[:, 3] <= 1e-4).any():
        return None
    size = np.array([region.width, region.height], float)
    pixels = (clip[:, :2] / clip[:, 3:] / 2 + 0.5) * size
    room = ROOM * np.ptp(pixels, axis=0).max()
    low = np.maximum(pixels.min(0) - room, 0.0)
    high = np.minimum(pixels.max(0) + room, size)
    if ((high - low) < LEAST).any():
        return None
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


class Overlay:
    """The picture over the 3D view; nothing of it is in the .blend."""

    def __init__(self) -> None:
        self._handle, self._pixels, self._texture = None, None, None
        self._place: Place | None = None
        self.moved = False  # the view is no longer the picture's

    @property
    def shown(self) -> bool:
        return self._place is not None

    def show(self, image: np.ndarray, where: Place) -> None:
        """Draw `image` (uint8 [H, W, 4], straight alpha, row 0 at the top) from now on."""
        self._pixels, self._texture = np.ascontiguousarray(image[::-1], np.float32) / 255, None
        self._place, self.moved = where, False
        if self._handle is None:
            self._handle = bpy.types.SpaceView3D.draw_handler_add(
                self._draw, (), "WINDOW", "POST_PIXEL"
            )
        redraw()

    def hide(self) -> None:
        """Draw nothing any more."""
        if self._handle is not None:
            bpy.types.SpaceView3D.draw_handler_remove(self._handle, "WINDOW")
            redraw()
        self._handle, self._pixels, self._texture = None, None, None
        self._place, self.moved = None, False

    def _draw(self) -> None:
        context, where = bpy.context, self._place
        region = context.region
        if where is None or region is None or region.as_pointer() != where.region:
            return
        if self._texture is None:
            self._texture = _texture(self._pixels)
        self.moved = key(region, context.region_data) != where.view
        if self.moved or where.camera is None:
            left, lower, right, upper = where.rectangle
            across, down = max(right - left, 1e-3), max(upper - lower, 1e-3)
            scale = CORNER * min(region.width, region.height) / max(across, down)
            corner = (EDGE, EDGE, EDGE + scale * across, EDGE + scale * down)
            _card(self._texture, corner, (0.1, 0.1, 0.1, 0.9))
        else:
            _card(self._texture, where.rectangle, _backdrop(context))


def _texture(pixels: np.ndarray):
    """float32 [H, W, 4], row 0 at the bottom, on the graphics card; while something is drawn."""
    import gpu

    height, width = pixels.shape[:2]
    linear = pixels.copy()  # as the view's own buffer, which encodes what is drawn into it
    colour = pixels[..., :3]
    linear[..., :3] = np.where(colour > 0.04045, ((colour + 0.055) / 1.055) ** 2.4, colour / 12.92)
    buffer = gpu.types.Buffer("FLOAT", linear.size, linear.ravel())
    return gpu.types.GPUTexture((width, height), format="RGBA32F", data=buffer)


def _card(texture, rectangle, backdrop) -> None:
    """A picture before a plain ground, in a thin frame."""
    import gpu
    from gpu_extras.batch import batch_for_shader

    left, lower, right, upper = rectangle
    corners = ((left, lower), (right, lower), (right, upper), (left, upper))
    gpu.state.blend_set("ALPHA")
    plain = gpu.shader.from_builtin("UNIFORM_COLOR")
    plain.uniform_float("color", backdrop)
    batch_for_shader(plain, "TRI_FAN", {"pos": corners}).draw(plain)
    pictured = gpu.shader.from_builtin("IMAGE")
    pictured.uniform_sampler("image", texture)
    uvs = ((0, 0), (1, 0), (1, 1), (0, 1))
    batch_for_shader(pictured, "TRI_FAN", {"pos": corners, "texCoord": uvs}).draw(pictured)
    plain.uniform_float("color", FRAME)
    batch_for_shader(plain, "LINE_STRIP", {"pos": (*corners, corners[0])}).draw(plain)
    gpu.state.blend_set("NONE")


def _backdrop(context) -> tuple[float, float, float, float]:
    """The colour behind the scene: it hides the mesh as it was."""
    shading = context.space_data.shading
    colour = context.preferences.themes[0].view_3d.space.gradients.high_gradient
    if shading.type in {"SOLID", "WIREFRAME"} and shading.background_type == "VIEWPORT":
        colour = shading.background_color
    return (*colour[:3], 1.0)


def redraw() -> None:
    """Have all 3D views drawn anew."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            if area.type == "VIEW_3D":
                for region in area.regions:
                    if region.type == "WINDOW":
                        region.tag_redraw()
