"""Say where the face is, by clicking into the photo."""

import blf
import bpy
import gpu
from gpu_extras.batch import batch_for_shader

from . import parameters, session
from .build import exif

ASKED = (
    "the right eye (left in the photo)",
    "the left eye (right in the photo)",
    "the tip of the nose",
    "the right corner of the mouth (left in the photo)",
    "the left corner of the mouth (right in the photo)",
)
SEEN = {"MIDDLEMOUSE", "WHEELUPMOUSE", "WHEELDOWNMOUSE", "TRACKPADPAN", "TRACKPADZOOM", "MOUSEMOVE"}


class TRIPLANE_OT_place_points(bpy.types.Operator):
    """Click both eyes, the nose and the corners of the mouth in the photo"""

    bl_idname = "triplane.place_points"
    bl_label = "Place Points by Hand"

    @classmethod
    def poll(cls, context):
        if session.running() is not None or not parameters.settings(context).photo:
            cls.poll_message_set("Pick a photo first")
            return False
        return context.area is not None and context.area.type == "VIEW_3D"

    def invoke(self, context, event):
        path = bpy.path.abspath(parameters.settings(context).photo)
        try:
            self._image = bpy.data.images.load(path)
        except RuntimeError:
            self.report({"ERROR"}, f"Blender cannot show {path}.")
            return {"CANCELLED"}
        self._width, self._height = self._image.size
        if not self._width or not self._height:
            bpy.data.images.remove(self._image)
            self.report({"ERROR"}, f"Blender cannot show {path}.")
            return {"CANCELLED"}
        self._turn = exif.orientation(path)
        self._points = []  # pixels of the stored image, from its bottom left as Blender has them
        self._area = context.area
        self._area.type = "IMAGE_EDITOR"  # the 3D view comes back when the points are set
        space = self._area.spaces.active
        space.image = self._image
        space.show_region_ui = space.show_region_toolbar = False
        self._fit = 3  # ticks after which the region has its size and the photo can be fitted
        self._draw = bpy.types.SpaceImageEditor.draw_handler_add(
            draw, (self,), "WINDOW", "POST_PIXEL"
        )
        self._timer = context.window_manager.event_timer_add(0.1, window=context.window)
        context.window_manager.modal_handler_add(self)
        context.window.cursor_modal_set("CROSSHAIR")
        return {"RUNNING_MODAL"}

    def modal(self, context, event):
        if self._area.type != "IMAGE_EDITOR":  # somebody else has turned it into something else
            return self._end(context, False)
        region = next(r for r in self._area.regions if r.type == "WINDOW")
        if event.type == "TIMER":
            self._fit -= 1
            if self._fit == 0:
                with context.temp_override(area=self._area, region=region):
                    bpy.ops.image.view_all(fit_view=True)
            return {"PASS_THROUGH"}
        if event.type in SEEN:
            return {"PASS_THROUGH"}
        if event.value == "PRESS" and event.type in {"ESC", "RIGHTMOUSE"}:
            return self._end(context, False)
        if event.value == "PRESS" and event.type == "BACK_SPACE":
            del self._points[-1:]
        if event.value == "PRESS" and event.type == "LEFTMOUSE":
            x, y = region.view2d.region_to_view(event.mouse_x - region.x, event.mouse_y - region.y)
            if 0 <= x <= 1 and 0 <= y <= 1:
                self._points.append((x * self._width, y * self._height))
        self._area.tag_redraw()
        if len(self._points) == len(ASKED):
            return self._end(context, True)
        return {"RUNNING_MODAL"}

    def cancel(self, context):
        self._end(context, False)

    def _end(self, context, done):
        bpy.types.SpaceImageEditor.draw_handler_remove(self._draw, "WINDOW")
        context.window_manager.event_timer_remove(self._timer)
        if context.window is not None:
            context.window.cursor_modal_restore()
        if self._area.type == "IMAGE_EDITOR":
            self._area.spaces.active.image = None
            self._area.type = "VIEW_3D"
        bpy.data.images.remove(self._image)
        if not done:
            return {"CANCELLED"}
        chosen = parameters.settings(context)
        width, height = self._width, self._height
        turned = (exif.turned(x, height - y, width, height, self._turn) for x, y in self._points)
        chosen.points = [number for point in turned for number in point]
        chosen.points_by_hand = True
        session.forget_failure()
        session.redraw()
        return {"FINISHED"}


def draw(operator):
    """Crosses where points have been set, and which one is asked for."""
    region, scale = bpy.context.region, bpy.context.preferences.system.ui_scale
    if bpy.context.area != operator._area:
        return
    shader = gpu.shader.from_builtin("UNIFORM_COLOR")
    arm = 7 * scale
    for x, y in operator._points:
        px, py = region.view2d.view_to_region(x / operator._width, y / operator._height, clip=False)
        for colour, size in (((0, 0, 0, 1), arm + 1), ((1, 0.75, 0.1, 1), arm)):
            lines = [(px - size, py), (px + size, py), (px, py - size), (px, py + size)]
            gpu.state.line_width_set(3.0 if colour[0] == 0 else 1.5)
            shader.bind()
            shader.uniform_float("color", colour)
            batch_for_shader(shader, "LINES", {"pos": lines}).draw(shader)
    gpu.state.line_width_set(1.0)
    number = len(operator._points)
    sentence = f"Click {ASKED[number]}" if number < len(ASKED) else ""
    blf.enable(0, blf.SHADOW)
    blf.shadow(0, 5, 0, 0, 0, 1)
    blf.color(0, 1, 1, 1, 1)
    blf.size(0, 20 * scale)
    blf.position(0, 30 * scale, 50 * scale, 0)
    blf.draw(0, f"{number + 1} of 5: {sentence}")
    blf.size(0, 12 * scale)
    blf.position(0, 30 * scale, 28 * scale, 0)
    blf.draw(0, "Backspace: take the last one back    Esc: leave it")
    blf.disable(0, blf.SHADOW)
