"""What operators share that hand fields of heads to the engine."""

import os
import tempfile

from ..engine.errors import TriplaneError
from . import polls
from .build import field, head
from .job import JobOperator


class FieldFiles:
    """Mix-in: fields and photos of heads as temporary files, gone when the operator ends."""

    _folder = ""

    def write_field(self, made, name="field", read=field.read):
        """The path of a temporary file `name` with the field of the head `made`, or with what
        `read` gives of it."""
        try:
            data = read(made)
            path = os.path.join(self._own_folder(), f"{name}.safetensors")
            field.write_whole(path, data)
        except OSError as error:
            raise TriplaneError(str(error)) from error
        return path

    def write_photo(self, made):
        """The path of a temporary file with the photo of `made`; '' if it is no longer there."""
        camera = head.photo_camera(made)
        backgrounds = camera.data.background_images if camera is not None else ()
        image = backgrounds[0].image if backgrounds else None
        if image is None or image.packed_file is None:
            return ""
        path = os.path.join(self._own_folder(), "photo.png")
        field.write_whole(path, image.packed_file.data)
        return path

    def _own_folder(self):
        self._folder = self._folder or tempfile.mkdtemp(prefix="triplane-")
        return self._folder

    def cleanup(self):
        if self._folder:
            import shutil

            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""


class FieldOperator(FieldFiles, JobOperator):
    """Mix-in of an operator that works on the active head's field."""

    @classmethod
    def poll(cls, context):
        return super().poll(context) and polls.has_head(cls, context)
