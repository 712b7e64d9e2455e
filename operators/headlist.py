"""What operators share that start from heads named by the artist: seeds, and heads of the scene."""

import json
import os
import re

import bpy

from ..engine.errors import ParameterError
from . import sampling
from .build import edited, head
from .fieldjob import FieldFiles

MOST = 1000


class HeadList(FieldFiles):
    """Mix-in: turns a text such as "3, 9" or "Anna, 12" into what jobs take as `heads`."""

    def take_heads(self, context, text, space="w"):
        """Sets self.heads_text for the job, self.labels, and self.model_used: the one that heads
        of the scene were made with, '' if there are none. Raises ParameterError."""
        sources, self.labels, used = [], [], {}
        for token in _tokens(text):
            if isinstance(token, int):
                sources.append(token)
                self.labels.append(f"head {token}")
                continue
            path = bpy.path.abspath(token)
            if token not in bpy.data.objects and os.path.isfile(path):
                sources.append(os.path.abspath(path))
                self.labels.append(os.path.basename(path).partition(".")[0])
                continue
            made = bpy.data.objects.get(token)
            recipe = _recipe(made) if made is not None else {}
            if not recipe:
                reason = "There is no head named" if made is None else "No code is in the field of"
                raise ParameterError(
                    f"{reason} {token}.", "Give seeds, or heads whose field holds a code."
                )
            used[(recipe.get("model"), recipe.get("sha256"))] = token
            self.labels.append(token)
            seed = None if edited.applied(made) else head.only_seed(recipe)
            if space == "z" and seed is not None:
                sources.append(seed)
            else:
                # The file's name is kept in the new head's recipe.
                name = bpy.path.clean_name(token)
                twice = any(str(s).endswith(f"{name}.safetensors") for s in sources)
                name = f"{name}-{len(sources)}" if twice else name
                sources.append(self.write_field(made, name))
        if len(used) > 1:
            raise ParameterError(
                f"The heads {' and '.join(used.values())} come from different models.",
                "Blend heads of one model.",
            )
        if not sources:
            raise ParameterError("No head is given.", "Give a seed, such as 3.")
        if len(sources) > MOST:
            raise ParameterError(f"More than {MOST} heads are too many.")
        self.model_used = next(iter(used))[0] if used else ""
        self.heads_text = json.dumps(sources)

    def head_parameters(self):
        """The job's parameters that say which heads, and how seeds become heads."""
        given = self.latent() | {"heads": self.heads_text, "space": self.space}
        return given | ({"model": self.model_used} if self.model_used else {})

    def whole_name(self):
        """What the path through the heads may be called."""
        first, last = self.labels[0], self.labels[-1]
        return f"{first} to {last}" if len(self.labels) > 1 else first


class HeadPath(HeadList):
    """Mix-in of an operator that goes from one head to the next, from a frame of the scene on. It
    has the properties of sampling.Latent and sampling.Path, and `start`."""

    def fill_path(self, context, names):
        """From a button: what the call leaves open is as the sidebar says; from this frame on.
        names: further properties of the sidebar."""
        if not self.heads:
            self.heads = of_panel(context, sampling.settings(context))
        names = (*sampling.NAMES, *sampling.Path.__annotations__, *names)
        sampling.fill(self, context, names)
        if not self.properties.is_property_set("start"):
            self.start = context.scene.frame_current

    def take_path(self, context):
        """take_heads(), of two heads at least. Raises ParameterError."""
        self.take_heads(context, self.heads, self.space)
        if len(self.labels) < 2:
            raise ParameterError("Two heads at least are needed.", "Give two seeds, such as 3, 9.")
        self.title = f"From {self.whole_name()}"


def _recipe(made):
    """How a head came about: recorded where it was made from seeds, else as its field says."""
    return head.recipe(made) or (edited.origin(made) if head.RECORD in made else {})


def selected(context):
    """The names of the selected heads that can be blended, in the order of their names."""
    found = (o for o in context.selected_objects if _recipe(o))
    return sorted(o.name for o in found)


def of_panel(context, chosen):
    """The text of heads to blend, as the panel says: selected ones first, then typed ones."""
    names = selected(context) if chosen.selected else []
    return ", ".join([*names, *([chosen.heads] if chosen.heads.strip() else [])])


def count(text):
    """How many heads a text names; 0 if it cannot be read. For panels."""
    try:
        return len(_tokens(text))
    except ParameterError:
        return 0


def _tokens(text):
    """Seeds as int, all else as str, of "3, 9", "0-7" or "Anna, 12"."""
    found = []
    for part in (p.strip() for p in text.split(",")):
        span = re.fullmatch(r"(\d+)\s*-\s*(\d+)", part)
        if re.fullmatch(r"\d+", part):
            found.append(int(part))
        elif span and part not in bpy.data.objects:
            first, last = int(span[1]), int(span[2])
            if not 0 <= last - first < MOST:
                raise ParameterError(f"{part} is no range of at most {MOST} seeds.")
            found += range(first, last + 1)
        elif part:
            found.append(part)
    return found
