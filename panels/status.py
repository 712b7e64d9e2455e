"""What every panel of the sidebar shows of jobs: what is missing, what runs, what has failed."""

import os

from ..operators import session
from . import text


class Sidebar:
    """Mix-in: a panel in our tab of the 3D view's sidebar."""

    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Triplane"


def runs_in(place):
    """Whether a job runs that the panel `place` shows."""
    running = session.running()
    return running is not None and running.place == place


def draw_running(context, layout, picture=True):
    """The running job: its picture, how far it is, and the button that ends it."""
    running = session.running()
    icon = session.thumbnails.preview()
    if not icon and os.path.isfile(running.photo):
        icon = session.thumbnails.photo(running.photo)  # so that the button below keeps its place
    if icon and picture:
        layout.template_icon(icon, scale=10)
    layout.label(text=running.title, icon="TIME")
    layout.progress(factor=running.fraction, type="BAR", text=f"{running.fraction:.0%}")
    row = layout.row()
    row.label(text=running.step[:1].upper() + running.step[1:])
    if running.seconds_left is not None:
        right = row.row()
        right.alignment = "RIGHT"
        right.label(text=f"{text.duration(running.seconds_left)} left")
    row = layout.row()
    row.scale_y = 1.3
    row.operator("triplane.cancel", icon="X")


def draw_missing(context, layout, missing):
    """What is missing before anything can be made."""
    text.wrapped(context, layout, missing.sentence, "ERROR")
    if missing.operator:
        row = layout.row()
        row.scale_y = 1.6
        row.operator(missing.operator, text=missing.label, icon=missing.icon)


def draw_failure(context, layout, place):
    """The last job's failure, if it belongs to this panel, and one button that mends it."""
    failure = session.failure
    if failure is None or session.failure_place != place:
        return
    box = layout.box()
    text.wrapped(context, box, failure.sentence, "ERROR", indent=16)
    if failure.remedy:
        text.wrapped(context, box, failure.remedy, "BLANK1", indent=16)
    if failure.kind == "no-face":
        box.operator("triplane.place_points", icon="RESTRICT_SELECT_OFF")
    elif failure.kind == "photo" and place == "photo":
        box.operator("triplane.pick_photo", text="Pick Another Photo...", icon="IMAGE_DATA")
    elif failure.kind in {"engine-setup", "memory", "weights"}:
        box.operator("triplane.open_preferences", icon="PREFERENCES")
    elif failure.kind in {"worker", "internal"} and os.path.isfile(session.log_path()):
        text.log_button(box, session.log_path())
