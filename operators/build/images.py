"""Images and arbitrary files packed into the .blend."""

from __future__ import annotations

import bpy
import numpy as np


def packed(name: str, data: bytes, filename: str) -> bpy.types.Image:
    """A new image data-block that holds `data` as a packed file.

    data: the bytes of an image file, or of any other file: Blender keeps what is packed byte for
        byte, and decodes it only when something draws it.
    filename: what the file is called when the artist unpacks it beside the .blend.
    """
    image = bpy.data.images.new(name, 1, 1)
    image.source = "FILE"
    image.pack(data=data, data_len=len(data))
    image.filepath_raw = "//" + bpy.path.clean_name(filename.rpartition(".")[0]) + (
        "." + filename.rpartition(".")[2]
    )
    return image


class Thumbnails:
    """Small pictures for panels that are no data-blocks, so that the artist's file keeps clean.

    `photo` gives the icon of a file on disk; `show` puts pixels into a picture by name, `icon` gives
    it back.
    """

    def __init__(self) -> None:
        self._previews = None
        self._photo = ""

    def photo(self, path: str) -> int:
        """The icon of the image file at `path`; Blender reads it in a thread of its own. Only the
        latest path is kept."""
        previews = self._collection()
        if path != self._photo or "photo" not in previews:
            if "photo" in previews:
                del previews["photo"]
            self._photo = path
            previews.load("photo", path, "IMAGE")
        return previews["photo"].icon_id

    def show(self, image: np.ndarray, name: str = "preview") -> None:
        """Make `image` (uint8 [H, W, 3], row 0 at the top) the picture `name`; the running job's
        preview without one."""
        previews = self._collection()
        if name not in previews:
            previews.new(name)
        preview = previews[name]
        height, width = image.shape[:2]
        # Icons are square: pad with transparent pixels, centred.
        side = max(height, width)
        pixels = np.zeros((side, side, 4), np.float32)
        top, left = (side - height) // 2, (side - width) // 2
        inside = pixels[top : top + height, left : left + width]
        inside[..., :3] = image[::-1]
        inside[..., :3] /= 255
        inside[..., 3] = 1
        preview.image_size = (side, side)
        preview.image_pixels_float.foreach_set(pixels.ravel())

    def icon(self, name: str) -> int:
        """The icon of the picture `name`; 0 while there is none."""
        if self._previews is None or name not in self._previews:
            return 0
        return self._previews[name].icon_id

    def blank(self) -> int:
        """The icon of a picture that is still to come."""
        if not self.icon("blank"):
            self.show(np.full((16, 16, 3), 40, np.uint8), "blank")
        return self.icon("blank")

    def drop(self, name: str) -> None:
        """Forget the picture `name`, if it is there."""
        if self._previews is not None and name in self._previews:
            del self._previews[name]

    def preview(self) -> int:
        """The icon of the running job's preview; 0 while there is none."""
        return self.icon("preview")

    def drop_preview(self) -> None:
        """Forget the preview of a job that has ended."""
        self.drop("preview")

    def free(self) -> None:
        """Release everything; the object may be used again."""
        if self._previews is not None:
            import bpy.utils.previews

            bpy.utils.previews.remove(self._previews)
            self._previews = None
            self._photo = ""

    def _collection(self):
        if self._previews is None:
            import bpy.utils.previews

            self._previews = bpy.utils.previews.new()
        return self._previews
