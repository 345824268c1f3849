"""Exact pixels: alpha, bit depths, colour models, orientation, and the four ways to fit a size."""

import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fastgan.data.bad import BadImageError
from fastgan.data.decode import ImageFormat, decode_image, fit_image
from fastgan.errors import DataError

Encode = Callable[..., bytes]


def decoded(encoded: bytes, channels: Any = 3) -> np.ndarray:
    """[H, W] or [H, W, C]."""
    return np.asarray(decode_image(encoded, channels=channels))


def fitted(pixels: Any, *, resolution: int, fit: Any) -> np.ndarray:
    """[H, W] or [C, H, W] of grey or RGB `pixels`."""
    image = Image.fromarray(np.asarray(pixels, dtype=np.uint8))
    channels: Any = 1 if image.mode == "L" else 3
    array = fit_image(image, image_format=ImageFormat(resolution, channels, fit), name="a.png")
    assert array.dtype == np.uint8
    assert array.shape == (channels, resolution, resolution)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    return array[0] if channels == 1 else array


def test_rgba_is_composited_on_white(encode: Encode) -> None:
    # (200 * 100 + 255 * 155) / 255 = 233.4, (10 * 100 + 255 * 155) / 255 = 158.9, 155; the hidden colour is ignored.
    pixels = [[[200, 10, 0, 100], [7, 7, 7, 0], [1, 2, 3, 255]]]
    assert decoded(encode(pixels)).tolist() == [[[233, 159, 155], [255, 255, 255], [1, 2, 3]]]


def test_grey_with_alpha_is_composited_on_white(encode: Encode) -> None:
    assert decoded(encode([[[0, 128], [9, 0], [9, 255]]]), channels=1).tolist() == [[127, 255, 9]]


def test_transparent_palette_is_composited_on_white(encode: Encode) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8)).copy()
    image = image.convert("P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    assert decoded(encode(image)).tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]
    transparent = encode(image, transparency=1)
    assert decoded(transparent).tolist() == [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]
    half = encode(image, transparency=bytes([255, 0, 51]))
    assert decoded(half).tolist() == [[[10, 20, 30], [255, 255, 255], [218, 220, 222]]]


def test_16_bit_grey_is_scaled(encode: Encode) -> None:
    image = Image.fromarray(np.array([[0, 128, 129, 32768, 65535]], dtype=np.uint16))
    assert decoded(encode(image), channels=1).tolist() == [[0, 0, 1, 128, 255]]
    assert decoded(encode(image)).tolist() == [[[0] * 3, [0] * 3, [1] * 3, [128] * 3, [255] * 3]]


def test_pixels_without_an_agreed_range_are_refused(encode: Encode) -> None:
    wide = Image.fromarray(np.array([[200, 200]], dtype=np.int32))
    with pytest.raises(BadImageError, match=r"32 bits \(mode I\) and no known range; save it with 16"):
        decode_image(encode(wide, image_format="TIFF"), channels=1)
    real = Image.fromarray(np.array([[0.0, 1.0]], dtype=np.float32))
    with pytest.raises(BadImageError, match=r"32 bits \(mode F\) and no known range"):
        decode_image(encode(real, image_format="TIFF"), channels=1)


def test_one_bit_and_cmyk_are_converted(encode: Encode) -> None:
    bits = Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1")
    assert decoded(encode(bits), channels=1).tolist() == [[0, 255]]
    cyan = Image.new("CMYK", (2, 1), (255, 0, 0, 0))
    assert decoded(encode(cyan, image_format="TIFF")).tolist() == [[[0, 255, 255]] * 2]


def test_channels_are_converted(encode: Encode) -> None:
    assert decoded(encode([[7, 9]]), channels=3).tolist() == [[[7] * 3, [9] * 3]]
    # ITU-R 601-2: 0.299 R + 0.587 G + 0.114 B
    assert decoded(encode([[[100, 150, 200]]]), channels=1).tolist() == [[141]]


def test_exif_orientation_is_applied(encode: Encode) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated by 90 degrees clockwise
    assert decoded(encode([[1, 2, 3], [4, 5, 6]], exif=exif), channels=1).tolist() == [[4, 1], [5, 2], [6, 3]]


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_lossless_formats(encode: Encode, image_format: str) -> None:
    pixels = [[[0, 0, 0], [255, 255, 255]], [[255, 0, 0], [0, 0, 255]]]
    options = {"lossless": True} if image_format == "WEBP" else {}
    assert decoded(encode(pixels, image_format=image_format, **options)).tolist() == pixels


def test_jpeg(encode: Encode) -> None:
    flat = np.full((16, 16, 3), (200, 100, 50))
    assert np.abs(decoded(encode(flat, image_format="JPEG")).astype(int) - flat).max() <= 3


def test_first_frame_of_an_animation(encode: Encode) -> None:
    frames = [Image.new("L", (2, 2), value) for value in (10, 200)]
    animation = encode(frames[0], image_format="GIF", save_all=True, append_images=frames[1:])
    assert decoded(animation, channels=1).tolist() == [[10, 10], [10, 10]]


def test_damaged_images_have_one_line_reasons(encode: Encode) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3))
    png, jpeg = encode(noise), encode(noise, image_format="JPEG")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    for damaged in (png[: len(png) // 2], jpeg[: len(jpeg) // 2], png[:20], bytes(flipped), b"\x89PNG\r\n\x1a\n"):
        with pytest.raises(BadImageError) as caught:
            decode_image(damaged, channels=3)
        reason = str(caught.value)
        assert reason
        assert "\n" not in reason
        assert "0x" not in reason
    with pytest.raises(BadImageError, match=r"^the file is empty$"):
        decode_image(b"", channels=3)
    with pytest.raises(
        BadImageError, match=r"^not an image in a known format \(PNG, JPEG, WEBP, BMP, GIF, TIFF, PPM\)$"
    ):
        decode_image(b"hello", channels=3)


def test_image_of_absurd_size_is_refused_before_it_is_decoded() -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(BadImageError, match="exceeds limit"):
        decode_image(bomb, channels=3)


def test_exact() -> None:
    assert fitted([[1, 2], [3, 4]], resolution=2, fit="exact").tolist() == [[1, 2], [3, 4]]
    expected = (
        "image 'a.png' is 3x1 pixels, data.fit=exact wants 2x2; "
        "set data.fit=pad, crop or resize, or data.resolution to the size of the images"
    )
    with pytest.raises(DataError) as caught:
        fitted([[1, 2, 3]], resolution=2, fit="exact")
    assert str(caught.value) == expected


def test_pad_centres_on_the_colour_of_the_border() -> None:
    assert fitted([[5]], resolution=4, fit="pad").tolist() == [[5] * 4] * 4
    grey = fitted([[1, 1, 1], [1, 9, 1], [1, 1, 7]], resolution=6, fit="pad")
    expected = np.ones((6, 6), dtype=int)
    expected[2, 2], expected[3, 3] = 9, 7
    assert grey.tolist() == expected.tolist()
    colour = fitted(np.full((1, 2, 3), (10, 20, 30)), resolution=2, fit="pad")
    assert colour[:, 1, 1].tolist() == [10, 20, 30]
    # Digits are white on black and keep a black border.
    digit = np.zeros((28, 28))
    digit[4:24, 4:24] = 255
    assert fitted(digit, resolution=32, fit="pad").sum() == 255 * 400


def test_pad_shrinks_what_is_too_large() -> None:
    wide = np.full((2, 8), 50)
    assert fitted(wide, resolution=4, fit="pad").tolist() == [[50] * 4] * 4
    line = np.zeros((1, 300))
    assert fitted(line, resolution=2, fit="pad").tolist() == [[0, 0], [0, 0]]


def test_crop_takes_the_centre() -> None:
    assert fitted([[1, 2, 3, 4], [5, 6, 7, 8]], resolution=2, fit="crop").tolist() == [[2, 3], [6, 7]]
    assert fitted([[1], [2], [3]], resolution=1, fit="crop").tolist() == [[2]]
    halves = np.repeat([[0, 80, 80, 0]], 2, axis=0).repeat(2, axis=0).repeat(2, axis=1)
    assert fitted(halves, resolution=2, fit="crop").tolist() == [[80, 80], [80, 80]]


def test_resize_is_antialiased_and_ignores_proportions() -> None:
    # Every other column is white: taking single pixels would give 0 or 255.
    stripes = np.tile([0, 255], (16, 32))
    assert np.abs(fitted(stripes, resolution=4, fit="resize").astype(int) - 127.5).max() < 20
    assert fitted(np.full((3, 7), 9), resolution=2, fit="resize").tolist() == [[9, 9], [9, 9]]
    ramp = fitted([[0, 255]], resolution=4, fit="resize")
    assert (np.diff(ramp[0].astype(int)) >= 0).all()


def test_format_refuses_unknown_values() -> None:
    wrong: Any = "stretch"
    with pytest.raises(ValueError, match="fit='stretch' must be one of exact, pad, crop, resize"):
        ImageFormat(4, 1, wrong)
    two: Any = 2
    with pytest.raises(ValueError, match="channels=2 must be 1 or 3"):
        ImageFormat(4, two)
