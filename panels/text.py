"""Sentences in narrow panels."""

import textwrap


def wrapped(context, layout, sentence, icon="NONE", indent=0):
    """`sentence` as labels that fit the region's width. indent: pixels taken by a box around."""
    scale = context.preferences.system.ui_scale
    width = context.region.width / scale - 40 - indent - (20 if icon != "NONE" else 0)
    column = layout.column(align=True)
    column.scale_y = 0.8
    for number, line in enumerate(textwrap.wrap(sentence, max(12, int(width / 6.2)))):
        if icon == "NONE":
            column.label(text=line)
        else:
            column.label(text=line, icon=icon if number == 0 else "BLANK1")


def duration(seconds):
    """'25 s' or '2 min', rounded as one would say it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"


def log_button(layout, path):
    """A button that opens the engine's log file."""
    layout.operator("wm.path_open", text="Open the Log", icon="TEXT").filepath = path
