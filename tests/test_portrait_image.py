"""Photos of every kind that Pillow reads, and every way in which a file can be bad."""

from __future__ import annotations

import os
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from engine.errors import PhotoError
from engine.portrait.image import HIDDEN_COLOUR, MAX_PIXELS, load_photo

ASTRONAUT = Path(__file__).parent.parent / "examples" / "astronaut.png"


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """A smooth colour picture, wider than high: its corners tell every orientation apart."""
    y, x = np.mgrid[:60, :90]
    return Image.fromarray(np.stack([x * 2.8, y * 4.2, 255 - x * 2.8], -1).astype(np.uint8))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).mean())


def test_example():
    photo = load_photo(ASTRONAUT)
    assert photo.rgb.shape == (512, 512, 3) and photo.rgb.dtype == np.uint8
    assert photo.alpha is None and (photo.width, photo.height) == (512, 512)


@pytest.mark.parametrize(
    ("suffix", "limit"),
    [("png", 0), ("bmp", 0), ("tif", 0), ("ppm", 0), ("tga", 0), ("jpg", 4), ("webp", 8)],
)
def test_formats(tmp_path, picture, suffix, limit):
    path = tmp_path / f"p.{suffix}"
    picture.save(path)
    assert difference(load_photo(path).rgb, np.array(picture)) <= limit


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("L", "png"), ("P", "png"), ("1", "png"), ("CMYK", "tif"), ("YCbCr", "tif"), ("LAB", "tif")],
)
def test_modes(tmp_path, picture, mode, suffix):
    if mode == "LAB":
        ends = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
        image, shown = ImageCms.profileToProfile(picture, *ends, outputMode="LAB"), picture
    else:
        image = picture.convert(mode)
        shown = image.convert("RGB")
    image.save(tmp_path / f"p.{suffix}")
    assert difference(load_photo(tmp_path / f"p.{suffix}").rgb, np.array(shown)) < 2


def test_cmyk_jpeg(tmp_path, picture):
    picture.convert("CMYK").save(tmp_path / "p.jpg", quality=95)
    assert difference(load_photo(tmp_path / "p.jpg").rgb, np.array(picture)) < 4


def test_16_bit_is_scaled_not_clipped(tmp_path):
    ramp = np.linspace(0, 65535, 100 * 80).reshape(80, 100)
    expected = ramp / 257
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "p.png")
    Image.fromarray(ramp.astype(np.int32)).save(tmp_path / "i.tif")
    Image.fromarray((ramp / 65535).astype(np.float32)).save(tmp_path / "f1.tif")
    Image.fromarray((ramp / 257).astype(np.float32)).save(tmp_path / "f255.tif")
    for name in ("p.png", "i.tif", "f1.tif", "f255.tif"):
        assert np.abs(load_photo(tmp_path / name).rgb[..., 1] - expected).max() <= 1, name


def test_dark_16_bit_stays_dark(tmp_path):
    Image.fromarray(np.full((64, 64), 2570, np.uint16)).save(tmp_path / "p.png")
    assert (load_photo(tmp_path / "p.png").rgb == 10).all()


def test_16_bit_colour_png(tmp_path):
    # Pillow cannot write one: two bytes a channel by hand.
    values = np.zeros((64, 64, 3), ">u2")
    values[..., 0], values[..., 1] = 65535, 32896
    write_png(tmp_path / "p.png", 64, 64, values.tobytes(), depth=16)
    assert (load_photo(tmp_path / "p.png").rgb == [255, 128, 0]).all()


def test_alpha(tmp_path, picture):
    alpha = np.zeros((60, 90), np.uint8)
    alpha[10:50, 20:70] = 255
    alpha[30, 30] = 77
    image = picture.copy()
    image.putalpha(Image.fromarray(alpha))
    for suffix in ("png", "webp", "tif"):
        image.save(tmp_path / f"p.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
        photo = load_photo(tmp_path / f"p.{suffix}")
        assert (photo.alpha == alpha).all()
        assert (photo.rgb[alpha > 0] == np.array(picture)[alpha > 0]).all()
        assert (photo.rgb[alpha == 0] == HIDDEN_COLOUR).all()
    image.convert("LA").save(tmp_path / "la.png")
    assert (load_photo(tmp_path / "la.png").alpha == alpha).all()


def test_opaque_alpha_is_none(tmp_path, picture):
    image = picture.copy()
    image.putalpha(255)
    image.save(tmp_path / "p.png")
    assert load_photo(tmp_path / "p.png").alpha is None


def test_transparent_palette_and_key_colour(tmp_path):
    indices = np.zeros((64, 64), np.uint8)
    indices[16:48, 16:48] = 1
    image = Image.fromarray(indices).convert("P")
    image.putpalette([255, 0, 0, 0, 200, 0])
    for name in ("p.png", "p.gif"):
        image.save(tmp_path / name, transparency=0)
        photo = load_photo(tmp_path / name)
        assert ((photo.alpha == 255) == (indices == 1)).all()
        assert (photo.rgb[indices == 1] == [0, 200, 0]).all()
    key = Image.fromarray(np.where(indices[..., None] == 1, [9, 8, 7], [1, 2, 3]).astype(np.uint8))
    key.save(tmp_path / "key.png", transparency=(1, 2, 3))
    assert ((load_photo(tmp_path / "key.png").alpha == 255) == (indices == 1)).all()


def test_animation_gives_first_frame(tmp_path, picture):
    for name in ("p.gif", "p.webp", "p.png"):
        other = Image.new("RGB", picture.size, (255, 255, 0))
        options = {"lossless": True} if name == "p.webp" else {}
        picture.save(tmp_path / name, save_all=True, append_images=[other], **options)
        assert difference(load_photo(tmp_path / name).rgb, np.array(picture)) < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_orientation(tmp_path, picture, orientation, suffix):
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,  # stored so, since showing turns it clockwise
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = picture.transpose(turn[orientation]) if orientation in turn else picture
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"p.{suffix}"
    stored.save(path, exif=exif)
    photo = load_photo(path)
    assert photo.rgb.shape == (60, 90, 3)
    assert difference(photo.rgb, np.array(picture)) < 3


def test_colour_profile_is_applied(tmp_path, picture):
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    picture.save(tmp_path / "srgb.png", icc_profile=bytes(profile))
    assert difference(load_photo(tmp_path / "srgb.png").rgb, np.array(picture)) < 1.5
    # Swapping the red and green primaries must swap what is seen.
    count = struct.unpack(">I", profile[128:132])[0]
    for i in range(count):
        tag = slice(132 + 12 * i, 136 + 12 * i)
        swap = {b"rXYZ": b"gXYZ", b"gXYZ": b"rXYZ"}
        profile[tag] = swap.get(bytes(profile[tag]), bytes(profile[tag]))
    picture.save(tmp_path / "swapped.png", icc_profile=bytes(profile))
    swapped = load_photo(tmp_path / "swapped.png").rgb
    assert difference(swapped, np.array(picture)[..., [1, 0, 2]]) < 3


def test_useless_profile_is_ignored(tmp_path, picture):
    picture.save(tmp_path / "p.png", icc_profile=b"this is no profile")
    assert (load_photo(tmp_path / "p.png").rgb == np.array(picture)).all()
    wrong = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture.convert("L").save(tmp_path / "l.png", icc_profile=wrong)
    grey = np.array(picture.convert("L").convert("RGB"))
    assert (load_photo(tmp_path / "l.png").rgb == grey).all()


def test_path_with_spaces_and_letters(tmp_path, picture):
    folder = tmp_path / "Mein Ordner für Köpfe 头像"
    folder.mkdir()
    picture.save(folder / "фото № 1.png")
    assert load_photo(str(folder / "фото № 1.png")).width == 90


# --- files that cannot be used -----------------------------------------------------------------


def refused(path) -> PhotoError:
    with pytest.raises(PhotoError) as caught:
        load_photo(path)
    assert caught.value.sentence.endswith(".") and caught.value.remedy.endswith(".")
    return caught.value


def test_missing_folder_empty(tmp_path):
    assert "does not exist" in refused(tmp_path / "none.png").sentence
    assert "folder" in refused(tmp_path).sentence
    (tmp_path / "empty.png").write_bytes(b"")
    assert "empty" in refused(tmp_path / "empty.png").sentence
    refused("null\0character.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in this system's folders")
def test_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert "ordinary" in refused(tmp_path / "pipe.png").sentence


def test_unreadable(tmp_path, picture):
    picture.save(tmp_path / "p.png")
    (tmp_path / "p.png").chmod(0)
    if os.access(tmp_path / "p.png", os.R_OK):
        pytest.skip("this user may read everything")
    assert "cannot be opened" in refused(tmp_path / "p.png").sentence


def test_text_named_jpg(tmp_path):
    (tmp_path / "notes.jpg").write_text("This is a shopping list, not a picture.\n" * 40)
    assert "not an image" in refused(tmp_path / "notes.jpg").sentence


def test_page_description_is_not_interpreted(tmp_path, picture):
    picture.save(tmp_path / "p.eps")
    assert "not an image" in refused(tmp_path / "p.eps").sentence


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "gif", "bmp"])
@pytest.mark.parametrize("part", [0.05, 0.5, 0.9])
def test_truncated(tmp_path, suffix, part):
    noise = np.random.default_rng(1).integers(0, 256, (200, 300, 3), np.uint8)
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    Image.fromarray(noise).save(whole)
    data = whole.read_bytes()
    cut.write_bytes(data[: int(len(data) * part)])
    refused(cut)


def test_random_damage_never_escapes(tmp_path, picture):
    rng = np.random.default_rng(2)
    for suffix in ("png", "jpg", "gif", "tif", "webp", "bmp", "tga", "ppm"):
        picture.save(tmp_path / f"p.{suffix}")
        data = np.frombuffer((tmp_path / f"p.{suffix}").read_bytes(), np.uint8)
        for _ in range(25):
            broken = data.copy()
            where = rng.integers(0, min(len(broken), 400), 12)
            broken[where] = rng.integers(0, 256, 12)
            path = tmp_path / "broken.bin"
            path.write_bytes(broken.tobytes())
            try:
                load_photo(path)
            except PhotoError:
                pass


def test_tiny_and_narrow(tmp_path):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    assert "too small: 1 x 1" in refused(tmp_path / "dot.png").sentence
    Image.new("RGB", (4000, 100)).save(tmp_path / "strip.png")
    assert "narrow" in refused(tmp_path / "strip.png").sentence


def write_png(path: Path, width: int, height: int, rows: bytes, depth: int = 8) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    step = len(rows) // height
    raw = b"".join(b"\0" + rows[i * step : (i + 1) * step] for i in range(height))
    head = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def test_bomb_is_refused_before_decoding(tmp_path):
    resource = pytest.importorskip("resource")  # not on Windows
    # A true 20,000 x 20,000 picture of 1.2 GB decoded, a few MB on disk.
    squeeze = zlib.compressobj(1)
    row = b"\0" + bytes(60_000)
    data = b"".join(squeeze.compress(row) for _ in range(20_000)) + squeeze.flush()

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    assert "too large" in refused(path).sentence
    assert time.perf_counter() - start < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


def test_just_over_the_limit(tmp_path):
    # Between Pillow's warning and its error only our own limit stands.
    width = 12_000
    height = MAX_PIXELS // width + 1
    Image.new("1", (width, height)).save(tmp_path / "p.png")
    assert "too large" in refused(tmp_path / "p.png").sentence


def test_grey_of_astronaut_is_grey(tmp_path):
    grey = ImageOps.grayscale(Image.open(ASTRONAUT))
    grey.save(tmp_path / "p.png")
    rgb = load_photo(tmp_path / "p.png").rgb
    assert (rgb == np.array(grey)[..., None]).all()
