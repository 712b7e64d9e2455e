"""What 3D views show: the head, or the photo's frame, beside our open sidebar and not behind it."""

from __future__ import annotations

import math

import bpy
import numpy as np
from mathutils import Vector

HEAD = 0.9  # of what is free of a view, by the bounding sphere of a framed head
PHOTO = 0.96  # of what is free of a view, by the frame of the photo's camera


def frame(context: bpy.types.Context, made: list[bpy.types.Object]) -> None:
    """Bring all of `made` into every 3D view, and show its texture where shading is solid.

    A view that looks through a camera is left alone, as is any shading the artist has chosen.
    """
    if not made:
        return
    context.view_layer.update()  # where they have just been put
    for window in context.window_manager.windows:
        for area in window.screen.areas:
            if area.type != "VIEW_3D":
                continue
            space = area.spaces.active
            if space.shading.type == "SOLID" and space.shading.color_type == "MATERIAL":
                space.shading.color_type = "TEXTURE"
            if space.region_3d is None or space.region_3d.view_perspective == "CAMERA":
                continue
            region = next(r for r in area.regions if r.type == "WINDOW")
            if not space.region_quadviews:
                _frame(area, region, space.region_3d, made)
                continue
            with context.temp_override(window=window, area=area, region=region):
                if bpy.ops.view3d.view_selected.poll():
                    bpy.ops.view3d.view_selected(use_all_regions=False)


def look_through(context: bpy.types.Context) -> None:
    """Turn the view of this context's area to the scene's camera, its whole frame to be seen.

    Only for cameras whose sensor fits horizontally, as those of photos do. Elsewhere than in a
    3D view nothing happens.
    """
    space, area, render = context.space_data, context.area, context.scene.render
    if space is None or space.type != "VIEW_3D":
        return
    view, region = space.region_3d, next(r for r in area.regions if r.type == "WINDOW")
    view.view_perspective = "CAMERA"
    low, high = _free(area, region)
    size = (high - low) * PHOTO
    width = min(size[0], size[1] * render.resolution_x / render.resolution_y)
    # Blender's terms: at factor 1 the frame is as wide as the region; offsets count half frames.
    factor = width / region.width
    view.view_camera_zoom = min(max(50 * (2 * math.sqrt(factor) - math.sqrt(2)), -30), 600)
    middle = (low + high) / 2 - np.array([region.width, region.height]) / 2
    view.view_camera_offset = -middle / (2 * factor * np.array([region.width, region.height]))


def _free(area: bpy.types.Area, region: bpy.types.Region) -> tuple[np.ndarray, np.ndarray]:
    """Lower left and upper right of what no other region covers of `region`, in its pixels."""
    low, high = np.zeros(2), np.array([region.width, region.height], float)
    for other in area.regions:
        x, y = other.x - region.x, other.y - region.y
        if other.type in {"UI", "TOOLS"} and other.width > 1:
            if other.alignment == "RIGHT":
                high[0] = min(high[0], x)
            elif other.alignment == "LEFT":
                low[0] = max(low[0], x + other.width)
        elif other.type in {"HEADER", "TOOL_HEADER"} and other.height > 1:
            if other.alignment == "TOP":
                high[1] = min(high[1], y)
            elif other.alignment == "BOTTOM":
                low[1] = max(low[1], y + other.height)
    if ((high - low) < 100).any():  # hardly anything is free: take it all
        return np.zeros(2), np.array([region.width, region.height], float)
    return low, high


def _frame(area, region, view, made) -> None:
    """Fit `made` into what is free. Blender's own operator centres it in the whole region, and so
    half behind a sidebar."""
    corners = np.array([o.matrix_world @ Vector(corner) for o in made for corner in o.bound_box])
    radius = np.linalg.norm(np.ptp(corners, axis=0)) / 2
    low, high = _free(area, region)
    # Half the region's width is so many times the distance, for a lens as for a parallel view.
    slope = 1 / view.window_matrix[0][0]
    if view.view_perspective == "ORTHO":
        slope /= view.view_distance
    view.view_distance = radius / (slope * (high - low).min() / region.width * HEAD)
    unit = 2 * slope * view.view_distance / region.width  # metres a pixel
    x, y = ((low + high) / 2 - np.array([region.width, region.height]) / 2) * unit
    view.view_location = Vector(corners.mean(0)) - view.view_rotation @ Vector((x, y, 0))
