"""From an encoded image to an array of the size and channels that training wants.

Shape legend: C channels, H W pixels.
"""

import io
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fastgan.data.bad import BadImageError
from fastgan.errors import DataError

Fit = Literal["exact", "pad", "crop", "resize"]
FITS: tuple[Fit, ...] = get_args(Fit)

# Formats that announce themselves in their first bytes and that Pillow decodes without running another program.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")


@dataclass(frozen=True)
class ImageFormat:
    """What every image becomes: uint8 [C, H, W] with C = channels and H = W = resolution.

    fit:
        exact: the image has this size already; another size is an error.
        pad: shrunk in proportion if it is too large, then centred on the median colour of its border.
        crop: the largest square in its centre, resized.
        resize: resized to the square, whatever its proportions.
    Resizing filters with Lanczos' kernel, widened when shrinking, so that nothing aliases.
    """

    resolution: int
    channels: Literal[1, 3]
    fit: Fit = "exact"

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ValueError(f"fit={self.fit!r} must be one of {', '.join(FITS)}")
        if self.channels not in (1, 3) or self.resolution < 1:
            raise ValueError(f"channels={self.channels} must be 1 or 3, and resolution={self.resolution} positive")

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, self.resolution, self.resolution)


def decode_image(encoded: bytes, *, channels: Literal[1, 3]) -> Image.Image:
    """The first frame, upright (EXIF), without alpha (composited on white), as 8-bit grey or RGB.

    Colour profiles are ignored. 16-bit grey is scaled to 8 bits.
    Raises:
        BadImageError: if it cannot be decoded completely.
    """
    if not encoded:
        raise BadImageError("the file is empty")
    try:
        with Image.open(io.BytesIO(encoded), formats=_FORMATS) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
        return _without_alpha(_to_8_bits(upright)).convert("L" if channels == 1 else "RGB")
    except BadImageError:
        raise
    except UnidentifiedImageError as error:
        raise BadImageError(f"not an image in a known format ({', '.join(_FORMATS)})") from error
    # Decoders meet damaged bytes with any error: OSError, SyntaxError, ValueError, struct.error, EOFError, ...
    except Exception as error:
        raise BadImageError(" ".join(str(error).split()) or type(error).__name__) from error


def fit_image(image: Image.Image, *, image_format: ImageFormat, name: str) -> NDArray[np.uint8]:
    """uint8 [C, H, W], the grey or RGB `image` brought to `image_format`.

    Raises:
        DataError: if fit is `exact` and the size differs; the message gives `name`.
    """
    resolution = image_format.resolution
    if image_format.fit == "exact" and image.size != (resolution, resolution):
        raise DataError(
            f"image {name!r} is {image.width}x{image.height} pixels, data.fit=exact wants "
            f"{resolution}x{resolution}; set data.fit=pad, crop or resize, or data.resolution to the size of the images"
        )
    if image_format.fit == "pad":
        pixels = _pad(_shrink(image, resolution), resolution)
    else:
        pixels = _pixels(_resize(_crop(image) if image_format.fit == "crop" else image, resolution, resolution))
    return pixels.transpose(2, 0, 1).copy()


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits scaled to 8, so that 65535 becomes 255; other images unchanged."""
    if image.mode in ("I", "F"):
        raise BadImageError(f"its pixels have 32 bits (mode {image.mode}) and no known range; save it with 16")
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray(((np.asarray(image).astype(np.int64) + 128) // 257).astype(np.uint8))


def _without_alpha(image: Image.Image) -> Image.Image:
    """`image` over white: (colour * alpha + 255 * (255 - alpha)) / 255, rounded to the nearest integer."""
    if not image.has_transparency_data:
        return image.convert("RGB") if image.mode == "P" else image
    layers = np.asarray(image.convert("RGBA")).astype(np.uint32)
    colour, alpha = layers[..., :3], layers[..., 3:]
    return Image.fromarray(((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8))


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    """uint8 [H, W, C]."""
    return np.asarray(image).reshape(image.height, image.width, -1)


def _resize(image: Image.Image, width: int, height: int) -> Image.Image:
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)


def _shrink(image: Image.Image, side: int) -> Image.Image:
    """`image` in its proportions, neither edge longer than `side`; a smaller image stays as it is."""
    longest = max(*image.size, side)
    return _resize(image, max(1, round(image.width * side / longest)), max(1, round(image.height * side / longest)))


def _pad(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """[H, W, C] `image` in the centre of a square; an odd pixel of border goes to the right and to the bottom."""
    pixels = _pixels(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    square = np.empty((side, side, pixels.shape[2]), dtype=np.uint8)
    # The median: numpy's own would take most of the time for a small image.
    square[:] = np.sort(border, axis=0)[len(border) // 2]
    top, left = (side - image.height) // 2, (side - image.width) // 2
    square[top : top + image.height, left : left + image.width] = pixels
    return square


def _crop(image: Image.Image) -> Image.Image:
    """The largest square in the centre of `image`."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))
