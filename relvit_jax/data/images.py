"""Encoded images to pixels, on the host: what is no image is an error.

A folder of images from anywhere holds grey and CMYK files, PNGs with holes,
photographs that lie on their side, and files that a full disk cut short. All
of them become upright RGB here, or an `ImageError` that names the file.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

# What PIL may try; it knows formats that run other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")

# PIL begins to warn a little above. Checked before a pixel is decoded.
MAX_PIXELS = 89_000_000

_ORIENTATION = 0x0112  # Of EXIF 2.3, table 4; 1 is upright.
_UPRIGHT = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
# Those that exchange height and width.
_TURNED = (5, 6, 7, 8)

# How many times larger than a view its part of an image is at least, where
# pixels are averaged by whole numbers before they are resized. Of photographs
# with detail in every pixel, at 1400 to 450 pixels a side, a gap of 2 changes
# views of 224 pixels by 0.5 to 1.0 of 255 levels in the mean, 1 % of pixels by
# more than 3 to 6, and a gap of 1 by 1.3 to 3.6, 1 % by more than 7 to 19;
# decoding 2000×1500 pixels takes 6.5 ms, a half a side 4.4, resizing all of
# them 7.3 and with the gap 3.5 (November 2026).
_GAP = 2.0

# (height, width) of an upright image → (top, left, height, width) of a box.
BoxOf = Callable[[tuple[int, int]], Any]


class ImageError(ValueError):
  """An image cannot be used; the message says which and why."""


def decode(data: bytes, what: str) -> UInt8[np.ndarray, "H W 3"]:
  """Pixels of a JPEG, PNG, WebP, BMP or GIF (its first frame), upright RGB.

  Grey is repeated, a palette looked up, CMYK converted, of 16 bits the upper
  eight kept, and what is transparent lies on white. Colour profiles are not
  applied.

  Args:
    data: the bytes of the file.
    what: the name of the image in an error.

  Raises:
    ImageError: empty, cut short, damaged, of another format, or of more than
      `MAX_PIXELS` pixels.
  """
  return np.array(_upright(_rgb(_loaded(_open(data, what), what))))


def squash(
  image: UInt8[np.ndarray, "H W 3"], size: int
) -> UInt8[np.ndarray, "size size 3"]:
  """The image as a square, whatever its shape: bilinear, with antialias."""
  if image.shape[:2] == (size, size):
    return image
  small = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
  return np.array(small)


def view(
  data: bytes, what: str, size: int, box_of: BoxOf, *, bounded: bool = True
) -> tuple[UInt8[np.ndarray, "{size} {size} 3"], Float[np.ndarray, " 4"]]:
  """A box of an encoded image, resized to size×size pixels, and the box.

  What `decode` would give, cut and resized, without making all of its pixels:
  of a large JPEG a half, a quarter or an eighth a side is decoded.

  Args:
    data: the bytes of the file.
    what: the name of the image in an error.
    size: pixels a side.
    box_of: (height, width) of the upright image → (top, left, height, width)
      of the box in it, in pixels, whole or not.
    bounded: whether only pixels that the box touches count. False: its
      neighbours too, as if the whole image had been resized before it was cut.

  Returns:
    Pixels, bilinear with antialiasing, rounded to 8 bits; and the box.

  Raises:
    ImageError: as `decode`.
  """
  image = _open(data, what)
  width, height = image.size
  drafted = box = None
  if image.format == "JPEG":  # All that matters stands in its header.
    turned = _orientation(image) in _TURNED
    box = box_of((width, height) if turned else (height, width))
    shrink = _shrink(float(min(box[2:])) / size)
    drafted = image.draft(image.mode, (width // shrink, height // shrink))
  image = _upright(_rgb(_loaded(image, what)))
  if box is None:
    box = box_of((image.height, image.width))
  shrunk = width / drafted[1][2] if drafted else 1.0
  top, left, height, width = (float(side) / shrunk for side in box)
  edges = left, top, left + width, top + height
  if bounded:
    x, y = math.floor(left), math.floor(top)
    image = image.crop((x, y, math.ceil(edges[2]), math.ceil(edges[3])))
    edges = left - x, top - y, edges[2] - x, edges[3] - y
  edges = (*edges[:2], min(edges[2], image.width), min(edges[3], image.height))
  small = image.resize(
    (size, size), Image.Resampling.BILINEAR, edges, reducing_gap=_GAP
  )
  return np.array(small), box


def stored(data: bytes, what: str) -> bytes:
  """The bytes to keep of an image: they decode to the same pixels everywhere.

  An upright RGB JPEG or PNG is kept to the byte, after every pixel of it was
  decoded; anything else becomes a PNG of what `decode` makes of it.

  Raises:
    ImageError: as `decode`.
  """
  image = _loaded(_open(data, what), what)
  if (
    image.format in ("JPEG", "PNG")
    and image.mode == "RGB"
    and not image.has_transparency_data
    and _orientation(image) == 1
  ):
    return data
  file = io.BytesIO()
  _upright(_rgb(image)).save(file, format="PNG")
  return file.getvalue()


class Skips:
  """Bad images that are left out, counted, and no more than were allowed."""

  def __init__(self, limit: int = 0):
    if limit < 0:
      raise ValueError(f"max_skipped={limit} must not be negative")
    self.limit = limit
    self.errors: list[ImageError] = []

  def add(self, error: ImageError) -> None:
    """Leaves an image out, or says why it cannot be.

    Raises:
      ImageError: the error itself where none may be left out; else, beyond the
        limit, one with the first names.
    """
    self.errors.append(error)
    if self.limit == 0:
      raise error
    if len(self.errors) > self.limit:
      raise ImageError(
        f"{len(self.errors)} images cannot be used, more than "
        f"max_skipped={self.limit}: {self._first()}"
      ) from error

  def summary(self) -> str:
    if not self.errors:
      return "none skipped"
    return f"{len(self.errors)} skipped: {self._first()}"

  def _first(self) -> str:
    more = len(self.errors) - 3
    shown = "; ".join(str(error) for error in self.errors[:3])
    return f"{shown}; and {more} more" if more > 0 else shown


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
  """Whatever PIL raises of an image becomes an `ImageError`."""
  # Not one exception of PIL's own: damaged files make its plugins raise
  # OSError, SyntaxError, struct.error, IndexError, zlib.error, …
  try:
    yield
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as bomb:
    raise ImageError(f"{what}: {bomb}") from bomb
  except Exception as error:
    raise ImageError(f"{what}: damaged or cut short ({error})") from error


def _open(data: bytes, what: str) -> Any:
  """The image of which only the header was read."""
  if not data:
    raise ImageError(f"{what}: the file is empty")
  with _named(what):
    try:
      image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
      image = None
  if image is None:
    raise ImageError(
      f"{what}: the {len(data):,} bytes are none of {', '.join(FORMATS)}"
    )
  width, height = image.size
  if width * height > MAX_PIXELS:
    raise ImageError(
      f"{what}: {width}×{height} pixels are more than {MAX_PIXELS:,}"
    )
  return image


def _loaded(image: Any, what: str) -> Image.Image:
  """The image with its pixels decoded, as it lies in the file."""
  with _named(what):
    image.load()
  return image


def _shrink(times: float) -> int:
  """By what a JPEG can be shrunk if its part is so many times the view."""
  return next((by for by in (8, 4, 2) if by * _GAP <= times), 1)


def _rgb(image: Image.Image) -> Image.Image:
  """Three channels of eight bits; transparent on white."""
  if image.mode.startswith("I"):
    # PIL would clip 16 bits to 255; of 16-bit RGB it keeps the upper eight.
    levels = np.asarray(image).astype(np.int64) >> 8
    image = Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
  if image.has_transparency_data:
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    image = Image.alpha_composite(white, image)
  return image if image.mode == "RGB" else image.convert("RGB")


def _orientation(image: Image.Image) -> int:
  """1 to 8 as EXIF counts; 1 where there is none or it cannot be read."""
  if not {"exif", "Raw profile type exif", "xmp"} & image.info.keys():
    return 1
  try:
    return int(image.getexif().get(_ORIENTATION, 1))
  except Exception:  # Damaged EXIF beside sound pixels, common in ImageNet.
    return 1


def _upright(image: Image.Image) -> Image.Image:
  how = _UPRIGHT.get(_orientation(image))
  return image if how is None else image.transpose(how)
