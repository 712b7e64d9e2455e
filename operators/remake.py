"""What operators share that make a head's mesh anew from its field, edited or not."""

from ..engine.errors import TriplaneError
from . import models
from .build import head
from .fieldjob import FieldOperator


class Remake(FieldOperator):
    """Mix-in of an operator whose job gives a head another mesh and texture.

    take(): what setup() returns; the head's name, edits and place are remembered for prepare() and
    finish(), which begins with still_there().
    """

    _text = ""

    @property
    def job(self):
        return "edit" if self._text else "extract"

    def take(self, made, path, text, sizes):
        """The job's parameters. path: of the head's unedited field; text: its edits; sizes: faces,
        texture_size, topology and density."""
        self._name, self._text = made.name, text
        self._field_to_object = list(made["triplane_field_to_object"])
        given = {"field": path, **sizes}
        if text:
            given |= {"edits": text, "models": models.folder()}
        # Visible skin comes from the photo, as it did the first time; the built-in model's pictures
        # show no more than its fields, and objects' pictures fit their fields loosely.
        fields_only = head.recipe(made).get("model") == models.BUILT_IN or head.is_object(made)
        photo = "" if fields_only else self.write_photo(made)
        return given | ({"photo": photo, "camera": made["triplane_camera"]} if photo else {})

    def prepare(self, result):
        return head.prepare(
            result["meta"] | {"name": self._name}, result["arrays"], self._field_to_object
        )

    def still_there(self, context):
        """The head. Raises TriplaneError."""
        made = context.scene.objects.get(self._name)
        if made is None:
            raise TriplaneError("The head was removed or renamed meanwhile.")
        return made
