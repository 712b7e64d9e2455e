"""What a head's sliders say, as amounts and as the text that the engine takes, and what the head
is."""

from . import directions, sliders
from .build import edited, head, linked, seen
from .sliders import known, model, slider

DIGITS = 3  # of an amount: Blender's own numbers have 32 bits
ANIMATED = "animated"  # instead of edits: of views that show other ones at every frame


def amounts(made, now=None):
    """{direction: amount} of a head's sliders, those that are not 0, in the model's order. now:
    what the object evaluates to at a frame, where that is wanted."""
    found = {}
    for one in known(made):
        owner, name, path = slider(made, one)
        if now is not None and owner is not None:
            value = now.path_resolve(path)
        else:
            value = getattr(owner, name) if owner is not None else 0.0
        value = round(min(max(value, one.low), one.high), DIGITS)
        if value:
            found[one.name] = value
    return found


def text(found):
    """Amounts as the engine takes them: 'age=1, smile=0.5'."""
    return ", ".join(f"{name}={value:g}" for name, value in found.items())


def wanted(made):
    """The text of a head's sliders."""
    return text(amounts(made))


def at_frames(context, made, frames):
    """{frame: text} of a head's sliders, with their animation evaluated."""
    found = {}
    for frame in seen.visited(context, list(frames)):
        now = made.evaluated_get(context.evaluated_depsgraph_get())
        found[frame] = text(amounts(made, now))
    return found


def parse(written, found):
    """Amounts of a text such as "age=1, nose_width=-0.5", for some directions. Raises
    ValueError with a sentence."""
    names = {directions.key(one.name): one for one in found}
    out = {}
    for part in filter(None, (p.strip() for p in written.split(","))):
        name, _, amount = (p.strip() for p in part.partition("="))
        one = names.get(directions.key(name))
        if one is None:
            listed = ", ".join(d.name for d in found)
            raise ValueError(f"There is no direction '{name[:40]}'. The directions are {listed}.")
        try:
            value = float(amount)
        except ValueError:
            raise ValueError(f"'{part[:40]}' is no change: write it as age=1.") from None
        if not one.low <= value <= one.high:
            raise ValueError(
                f"The amount of {one.name} must be from {one.low:g} to {one.high:g}, not {value:g}."
            )
        if one.name in out:
            raise ValueError(f"{one.name} is given twice.")
        out[one.name] = round(value, DIGITS)
    ordered = ((one.name, out.get(one.name, 0.0)) for one in found)
    return {name: value for name, value in ordered if value}


def put(made, found):
    """Set a head's sliders to amounts, all others to 0, without an update of the preview."""
    sliders.prepare(made)
    with sliders.quiet():
        for one in known(made):
            owner, name, _ = slider(made, one)
            if owner is not None:
                value = found.get(one.name, 0.0)
                if abs(getattr(owner, name) - value) > 1e-6:
                    setattr(owner, name, value)


def rename(made, of_model, before, after):
    """Have the slider and the edits of a head follow a direction of its model to a new name."""
    more = sliders.of(made).more
    if before not in more or model(made) != of_model:
        return
    more[before].name = after
    parts = [p.partition("=") for p in edited.applied(made).split(", ") if p]
    renamed = ", ".join(f"{after if n == before else n}={value}" for n, _, value in parts)
    if renamed:
        made[edited.EDITS] = renamed


def settle(made):
    """Have a head's sliders say what the head is. Those that are animated follow their curves."""
    if not (_moved(made) or edited.applied(made)):
        return  # without a look into its field
    if not animated(made) and wanted(made) != edited.applied(made):
        try:
            put(made, parse(edited.applied(made), known(made)))
        except ValueError:  # the model has other directions by now
            put(made, {})


def _moved(made):
    own = sliders.of(made)
    keys = (directions.key(one.name) for one in directions.built_in())
    return any(getattr(own, key) for key in keys) or any(one.amount for one in own.more)


def animated(made, path=sliders.PATH):
    """Whether sliders of a head (or the one of this path) have keyframes or drivers."""
    data = made.animation_data
    if data is None:
        return False
    curves = [*_curves(data), *data.drivers]
    return any(c.data_path == path or c.data_path.startswith(f"{path}.") for c in curves)


def _curves(data):
    action, slot = data.action, getattr(data, "action_slot", None)
    if action is None:
        return []
    if slot is None:  # before Blender 4.4 an action has no slots
        return list(getattr(action, "fcurves", ()))
    bags = (strip.channelbag(slot) for layer in action.layers for strip in layer.strips)
    return [curve for bag in bags if bag is not None for curve in bag.fcurves]


def stale_views(made):
    """The names of baked image sequences that show a head as it was before its present edits."""
    now = edited.applied(made)
    found = linked.of_head(made.name)
    return [i.name for i, facts in found if facts.get("edits", "") not in (now, ANIMATED)]


def refusal(made):
    """Why a head cannot be edited, in a sentence; '' if it can. Cheap enough for a panel."""
    if head.is_object(made):
        return f"{made.name} was made of a picture of a thing: only heads can be edited"
    if made.library is not None or made.override_library is not None:
        return f"{made.name} belongs to another file: make it local to edit it"
    if made.type != "MESH":
        return f"{made.name} has no mesh"
    if not edited.origin(made):
        return (
            f"The field of {made.name} holds no latent code, as heads of older versions do: make "
            "the head anew to edit it"
        )
    if not known(made):
        return f"No directions of the model {model(made)} are known"
    return ""
