"""Load a photo: any image that Pillow reads, upright, 8-bit sRGB, or an error for the artist."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from engine.errors import PhotoError

MAX_PIXELS = 120_000_000  # what six gigabytes of memory carry through all the steps
MIN_SIDE = 48  # below this no face has enough pixels for its five points
MAX_ASPECT = 20.0
# These are programs for a page, not pictures: opening them would start an interpreter.
REFUSED_FORMATS = {"EPS", "WMF"}
HIDDEN_COLOUR = 128  # painted where alpha is 0: the colours there are arbitrary

_EXPORT = "Export it again as PNG or JPEG and choose that file."


@dataclass(frozen=True)
class Photo:
    """A picture, upright, in display sRGB.

    rgb: uint8 [H, W, 3], straight (not multiplied by alpha); fully transparent pixels are mid grey.
    alpha: uint8 [H, W], 0 transparent .. 255 opaque, or None when the picture is opaque.
    path: where it was read.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None
    path: Path

    @property
    def width(self) -> int:
        return self.rgb.shape[1]

    @property
    def height(self) -> int:
        return self.rgb.shape[0]


def load_photo(path: str | Path) -> Photo:
    """Read a photo.

    Obeys the EXIF orientation, converts an embedded colour profile to sRGB, scales 16-bit, integer
    and float pictures to 8 bits, reads the first frame of an animation. Sizes are judged from the
    file's header: an oversized picture is refused before anything is decoded.

    Raises PhotoError: missing, a folder, unreadable, empty, not an image, damaged, larger than
    MAX_PIXELS, smaller than MIN_SIDE, or longer than MAX_ASPECT times its width.
    """
    path = Path(path).expanduser()
    _check_file(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's softer size warning: our limit is firm
            with Image.open(path, formats=_formats()) as image:
                _check_size(path, *image.size)
                image.load()
                _check_size(path, *image.size)  # icons and the like learn their size when loaded
                rgb, alpha = _to_srgb(_upright(image))
    except PhotoError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except UnidentifiedImageError as error:
        raise PhotoError(
            f"{path.name} is not an image that can be read.",
            "Choose a PNG, JPEG, TIFF, WebP, BMP or GIF file; save HEIC, RAW and SVG as one first.",
        ) from error
    except MemoryError as error:
        raise PhotoError(
            f"There is not enough memory to open {path.name}.", "Save a smaller copy and choose it."
        ) from error
    except Exception as error:  # decoders of damaged files raise anything, from OSError to KeyError
        raise PhotoError(f"{path.name} is damaged: it ends early or is broken.", _EXPORT) from error
    return Photo(rgb, alpha, path)


def _check_file(path: Path) -> None:
    choose = "Choose a picture file."
    try:
        if path.is_dir():
            raise PhotoError(f"{path.name or path} is a folder, not a picture.", choose)
        if not path.exists():
            raise PhotoError(f"{path} does not exist.", choose)
        if not path.is_file():  # a pipe or a device would block or never end
            raise PhotoError(f"{path.name} is not an ordinary file.", choose)
        with path.open("rb") as file:
            if not file.read(1):
                raise PhotoError(f"{path.name} is empty.", choose)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        remedy = "Check that the path is right and that you may read the file."
        raise PhotoError(f"{path.name} cannot be opened.", remedy) from error


def _formats() -> list[str]:
    Image.init()
    return [name for name in Image.ID if name not in REFUSED_FORMATS]


def _too_large(path: Path) -> PhotoError:
    limit = MAX_PIXELS // 1_000_000
    return PhotoError(
        f"{path.name} is too large: at most {limit} million pixels can be opened.",
        "Scale it down (4000 pixels on the long side is plenty) and choose that file.",
    )


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _too_large(path)
    if min(width, height) < MIN_SIDE:
        raise PhotoError(
            f"{path.name} is too small: {width} x {height} pixels.",
            f"Choose a photo of at least {MIN_SIDE} pixels a side; 512 or more is better.",
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise PhotoError(
            f"{path.name} is too long and narrow: {width} x {height} pixels.",
            "Crop it to the person and choose that file.",
        )


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a broken EXIF block must not cost the artist the picture
        return image


def _to_srgb(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """uint8 sRGB [H, W, 3] and uint8 alpha [H, W] or None of a loaded Pillow image of any mode."""
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        image = _deep_to_grey(image)
    profile = image.info.get("icc_profile")
    if "transparency" in image.info or image.mode in ("PA", "LA", "La", "RGBa"):
        image = image.convert("RGBA")
    alpha = None
    if image.mode == "RGBA":
        alpha = np.array(image.getchannel("A"))
    elif image.mode in ("P", "1", "HSV", "YCbCr"):
        image = image.convert("RGB")
    colour = _through_profile(image.convert("RGB") if image.mode == "RGBA" else image, profile)
    rgb = np.array(colour)
    if alpha is not None:
        if alpha.min() == 255:
            return rgb, None
        rgb[alpha == 0] = HIDDEN_COLOUR
    return rgb, alpha


def _deep_to_grey(image: Image.Image) -> Image.Image:
    """An 8-bit grey picture of a 16-bit, 32-bit integer or float one: scaled, not clipped.

    The full scale is 65535 for 16 bits (and for the 32-bit mode in which Pillow hands over 16-bit
    files); for floats 1.0. Values beyond that say that the writer used the next usual full scale
    (255 for floats, 65535), or, failing those, that the largest value is white.
    """
    values = np.array(image, dtype=np.float64)
    values = np.where(np.isfinite(values), values, 0.0)
    top = float(values.max(initial=0.0))
    if image.mode == "F":
        white = next((w for w in (1.0, 255.0, 65535.0) if top <= w * 1.001), top)
    else:
        white = 65535.0 if top <= 65535.0 else top
    grey = np.clip(values / white * 255.0 + 0.5, 0, 255).astype(np.uint8)
    out = Image.fromarray(grey)
    if "icc_profile" in image.info:
        out.info["icc_profile"] = image.info["icc_profile"]
    return out


def _through_profile(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB of an RGB, L, CMYK or LAB image, through its colour profile where there is a usable one.
    Without the colour management module (some builds of Pillow) profiles are ignored."""
    try:
        from PIL import ImageCms

        if image.mode == "LAB":
            source = ImageCms.createProfile("LAB")
        elif profile:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        else:
            return image.convert("RGB")
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
        return converted if converted is not None else image.convert("RGB")
    except Exception:  # a damaged profile, or one for another kind of picture: do without
        return image.convert("RGB")
