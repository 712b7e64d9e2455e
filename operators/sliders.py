"""A head's sliders: properties of its object, so that they can be keyframed.

The panel shows sliders of the window manager that pass on to the active head's: Blender makes an
undo step of its own for every drag of an object's property, and an edit shall be one step, with its
mesh and its field. No `from __future__ import annotations` here: Blender reads the annotations as
objects.
"""

from contextlib import contextmanager

import bpy
from bpy.props import BoolProperty, CollectionProperty, FloatProperty, PointerProperty

from . import directions, models
from .build import edited, head

PATH = "triplane_edit"  # the sliders' property on objects
_listeners = []  # called with an object whose sliders an artist or a script has changed
_quiet = 0


def _changed(self, context):
    if not _quiet and isinstance(self.id_data, bpy.types.Object):
        for listener in _listeners:
            listener(context, self.id_data)


class TRIPLANE_PG_direction(bpy.types.PropertyGroup):
    """The slider of a direction of a model that the user has added; `name` is the direction's."""

    amount: FloatProperty(
        name="Amount",
        description="How far the head is changed in this direction",
        default=0.0,
        min=-10.0,
        max=10.0,
        soft_min=directions.RANGE[0],
        soft_max=directions.RANGE[1],
        update=_changed,
    )


def _own(direction):
    """The property of a built-in direction on objects."""
    return FloatProperty(
        name=directions.label(direction.name),
        description=_about(direction),
        default=0.0,
        min=direction.low,
        max=direction.high,
        update=_changed,
    )


def _about(direction):
    return f"1 is {direction.meaning}" if direction.meaning else "How far the head is changed"


def _passed_on(label, description, low, high, find):
    """A property of the panel. find(object): (owner, name) of the property that it stands for."""

    def get(self):
        made = head.active(bpy.context)
        owner, name = find(made) if made is not None else (None, "")
        return getattr(owner, name) if owner is not None else 0.0

    def put(self, value):
        made = head.active(bpy.context)
        owner, name = find(made) if made is not None else (None, "")
        if owner is not None:
            setattr(owner, name, min(max(value, low), high))

    return FloatProperty(
        name=label,
        description=description,
        default=0.0,
        min=low,
        max=high,
        precision=2,
        step=5,
        get=get,
        set=put,
        options={"SKIP_SAVE"},
    )


def _slot(number):
    def find(made):
        more = of(made).more
        return (more[number], "amount") if number < len(more) else (None, "")

    return find


def _groups():
    """(sliders of objects, those of the panel): a property each for every direction."""
    on_objects = {"more": CollectionProperty(type=TRIPLANE_PG_direction)}
    shown = {
        "automatic": BoolProperty(
            name="Refine at Rest",
            description="Make mesh, texture and field anew as soon as no slider moves any more",
            default=True,
        )
    }
    for one in directions.built_in():
        key = directions.key(one.name)
        on_objects[key] = _own(one)
        shown[key] = _passed_on(
            directions.label(one.name),
            _about(one),
            one.low,
            one.high,
            lambda made, key=key: (of(made), key),
        )
    for number in range(directions.MOST):
        text = "How far the head is changed in this direction"
        low, high = directions.RANGE
        shown[_slot_name(number)] = _passed_on("Amount", text, low, high, _slot(number))
    groups = (("TRIPLANE_PG_edit", on_objects), ("TRIPLANE_PG_sliders", shown))
    return [type(n, (bpy.types.PropertyGroup,), {"__annotations__": a}) for n, a in groups]


def _slot_name(number):
    return f"slot_{number}"


def of(made):
    """The sliders of an object: a property for every built-in direction, and `more`."""
    return getattr(made, PATH)


def model(made):
    """The name of the model whose code a head's unedited field holds; '' without a code."""
    return str(edited.origin(made).get("model", "")) if edited.origin(made) else ""


def known(made):
    """The directions of a head's model."""
    return directions.of_model(model(made))


def prepare(made):
    """Give a head of an added model the sliders of its directions; others have them. Not while
    something is drawn."""
    if model(made) != models.BUILT_IN:
        more = of(made).more
        for one in known(made):
            if one.name not in more:
                with quiet():
                    more.add().name = one.name


def slider(made, direction):
    """(owner, name, path) of a direction's property on an object: path from the object. (None, '',
    '') where it has none yet, see prepare()."""
    if model(made) == models.BUILT_IN:
        key = directions.key(direction.name)
        return of(made), key, f"{PATH}.{key}"
    more = of(made).more
    index = more.find(direction.name)
    if index < 0:
        return None, "", ""
    return more[index], "amount", f"{PATH}.more[{index}].amount"


def shown_as(made, direction):
    """The name of the panel's property for a direction, or '' for none yet."""
    if model(made) == models.BUILT_IN:
        return directions.key(direction.name)
    index = of(made).more.find(direction.name)
    return _slot_name(index) if 0 <= index < directions.MOST else ""


@contextmanager
def quiet():
    """Within, changes of sliders are nobody's business."""
    global _quiet
    _quiet += 1
    try:
        yield
    finally:
        _quiet -= 1


def listen(function):
    """Have function(context, object) called when sliders change by hand or script."""
    _listeners.append(function)


def settings(context):
    """The panel's sliders and settings."""
    return context.window_manager.triplane_sliders


_classes = ()


def register():
    global _classes
    bpy.utils.register_class(TRIPLANE_PG_direction)
    _classes = (TRIPLANE_PG_direction, *_groups())
    for cls in _classes[1:]:
        bpy.utils.register_class(cls)
    _, on_objects, shown = _classes
    setattr(bpy.types.Object, PATH, PointerProperty(type=on_objects))
    bpy.types.WindowManager.triplane_sliders = PointerProperty(type=shown)


def unregister():
    _listeners.clear()
    del bpy.types.WindowManager.triplane_sliders
    delattr(bpy.types.Object, PATH)
    for cls in reversed(_classes):
        bpy.utils.unregister_class(cls)
