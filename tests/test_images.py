"""Encoded images: whatever can be read is upright RGB, the rest has a name."""

import io
import struct
import subprocess
import sys
import zlib
from importlib.resources import files

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from relvit_jax.data import augment, images


def encoded(pixels, file_format="PNG", mode=None, **options):
  image = Image.fromarray(np.asarray(pixels, np.uint8))
  file = io.BytesIO()
  (image.convert(mode) if mode else image).save(file, file_format, **options)
  return file.getvalue()


def noise(height=6, width=8):
  return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def smooth():
  """Slow colours, that JPEG keeps to a few levels."""
  row, column = np.mgrid[:16, :24] * 8
  return np.stack([row, column, row + column // 2], -1).astype(np.uint8)


# Left half red, right half blue: a mirror and a turn both show.
TWO = np.zeros((4, 8, 3), np.uint8)
TWO[:, :4, 0] = TWO[:, 4:, 2] = 255


@given(
  arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3)))
)
@settings(max_examples=25, deadline=None)
def test_what_was_kept_without_loss_comes_back(pixels):
  for file_format in ("PNG", "BMP"):
    decoded = images.decode(encoded(pixels, file_format), "x")
    np.testing.assert_array_equal(decoded, pixels)
  webp = encoded(pixels, "WEBP", lossless=True)
  np.testing.assert_array_equal(images.decode(webp, "x"), pixels)


def test_a_jpeg_comes_back_nearly():
  decoded = images.decode(encoded(smooth(), "JPEG", quality=95), "x")
  assert np.abs(decoded.astype(int) - smooth()).max() < 12


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "BMP", "GIF"])
def test_grey_is_repeated_over_the_channels(file_format):
  grey = smooth()[..., 1]
  decoded = images.decode(encoded(grey, file_format), "x")
  assert decoded.shape == (16, 24, 3)
  assert decoded.dtype == np.uint8
  assert np.abs(decoded - grey[..., None].astype(int)).max() < 12


def test_one_bit_is_black_and_white():
  data = encoded([[0, 255], [255, 0]], mode="1")
  np.testing.assert_array_equal(
    images.decode(data, "x")[..., 0], [[0, 255], [255, 0]]
  )


def test_a_palette_is_looked_up():
  palette = Image.fromarray(TWO).quantize(4)
  for file_format in ("PNG", "GIF", "BMP"):
    file = io.BytesIO()
    palette.save(file, file_format)
    decoded = images.decode(file.getvalue(), "x")
    np.testing.assert_array_equal(decoded, TWO)


def test_of_sixteen_bits_the_upper_eight_are_kept():
  levels = np.array([[0, 255, 256], [0x1234, 0x80FF, 0xFFFF]], np.uint16)
  file = io.BytesIO()
  Image.fromarray(levels).save(file, "PNG")
  np.testing.assert_array_equal(
    images.decode(file.getvalue(), "x")[..., 2],
    [[0, 0, 1], [0x12, 0x80, 0xFF]],
  )


def test_what_is_transparent_lies_on_white():
  pixels = np.zeros((1, 3, 4), np.uint8)
  pixels[0, :, 0] = 200
  pixels[0, :, 3] = 255, 0, 51
  np.testing.assert_array_equal(
    images.decode(encoded(pixels), "x")[0],
    [[200, 0, 0], [255, 255, 255], [244, 204, 204]],
  )
  grey_and_alpha = encoded([[10, 10]], mode="LA")
  assert images.decode(grey_and_alpha, "x")[0, 0].tolist() == [10, 10, 10]


def test_a_transparent_colour_of_a_palette_lies_on_white():
  palette = Image.fromarray(TWO).quantize(2)
  file = io.BytesIO()
  palette.save(file, "PNG", transparency=palette.getpixel((0, 0)))
  decoded = images.decode(file.getvalue(), "x")
  assert decoded[0, 0].tolist() == [255, 255, 255]
  assert decoded[0, 7].tolist() == [0, 0, 255]


def test_cmyk_is_converted():
  data = encoded(np.full((8, 8, 3), (0, 128, 255)), "JPEG", "CMYK", quality=95)
  assert Image.open(io.BytesIO(data)).mode == "CMYK"
  np.testing.assert_allclose(
    images.decode(data, "x")[4, 4], [0, 128, 255], atol=6
  )


def test_of_an_animation_the_first_frame():
  frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
  file = io.BytesIO()
  frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
  assert images.decode(file.getvalue(), "x")[0, 0].tolist() == [255, 0, 0]


# As EXIF 2.3 says where the first row and column of the file belong.
TURNED = {
  1: lambda x: x,
  2: lambda x: x[:, ::-1],
  3: lambda x: x[::-1, ::-1],
  4: lambda x: x[::-1],
  5: lambda x: x.transpose(1, 0, 2),
  6: lambda x: np.rot90(x, -1),
  7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
  8: lambda x: np.rot90(x, 1),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_exif_turns_the_image_upright(orientation, file_format):
  exif = Image.Exif()
  exif[0x0112] = orientation
  data = encoded(noise(), file_format, exif=exif, lossless=True)
  upright = TURNED[orientation](noise())
  np.testing.assert_array_equal(images.decode(data, "x"), upright)
  kept = images.stored(data, "x")
  np.testing.assert_array_equal(images.decode(kept, "x"), upright)
  # Without EXIF too, as another reader may not look at it.
  np.testing.assert_array_equal(
    np.asarray(Image.open(io.BytesIO(kept))), upright
  )


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_leaves_the_pixels_alone():
  plain = encoded(smooth(), "JPEG")
  data = encoded(
    smooth(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff damaged"
  )
  np.testing.assert_array_equal(
    images.decode(data, "x"), images.decode(plain, "x")
  )


def bomb(width, height):
  """A PNG that promises many pixels and holds none."""
  header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  end = b"IEND"
  return b"\x89PNG\r\n\x1a\n" + b"".join(
    struct.pack(">I", len(chunk) - 4)
    + chunk
    + struct.pack(">I", zlib.crc32(chunk))
    for chunk in (header, b"IDAT" + zlib.compress(b""), end)
  )


def flipped(data, place):
  return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


BAD = {
  "empty": (b"", "the file is empty"),
  "text": (b"<html>404</html>", "16 bytes are none of JPEG, PNG"),
  "cut JPEG": (encoded(noise(64, 64), "JPEG")[:-400], "cut short"),
  "cut PNG": (encoded(noise(64, 64))[:-400], "cut short"),
  "head of a JPEG": (encoded(noise(), "JPEG")[:30], "cut short|none of"),
  "cut GIF": (encoded(noise(64, 64), "GIF")[:-3000], "cut short"),
  "cut WebP": (encoded(noise(64, 64), "WEBP")[:-300], "cut short"),
  "cut BMP": (encoded(noise(64, 64), "BMP")[:-300], "cut short"),
  "large": (bomb(10_000, 8_901), "89,010,000|10000×8901"),
  "larger": (bomb(10_000, 8_999), "10000×8999|89990000"),
  "bomb": (bomb(60_000, 60_000), "3600000000 pixels"),
  "TIFF": (encoded(noise(), "TIFF"), "none of"),
  "ICO": (encoded(noise(16, 16), "ICO"), "none of"),
}


def view(data, what):
  return images.view(data, what, 2, lambda size: np.float32([0, 0, 2, 2]))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("read", [images.decode, images.stored, view])
@pytest.mark.parametrize("case", BAD)
def test_what_is_no_image_is_named(case, read):
  data, reason = BAD[case]
  with pytest.raises(images.ImageError, match=f"cat/1.jpg: .*({reason})"):
    read(data, "cat/1.jpg")


def test_a_warning_of_pil_made_an_error_is_a_named_error_too():
  with pytest.raises(images.ImageError, match=r"x\.png: .*89990000 pixels"):
    images.decode(bomb(10_000, 8_999), "x.png")


def test_no_flipped_bit_changes_the_pixels_of_a_png_unnoticed():
  data = encoded(noise())
  unnoticed = []
  for place in range(len(data)):
    try:
      decoded = images.decode(flipped(data, place), "x")
    except images.ImageError:
      continue
    if not np.array_equal(decoded, noise()):
      unnoticed.append(place)
  assert unnoticed == []


@given(st.binary(max_size=60))
@settings(max_examples=60, deadline=None)
def test_garbage_is_an_image_error_and_nothing_else(garbage):
  for start in (
    b"",
    b"\xff\xd8\xff\xe0",
    b"\x89PNG\r\n\x1a\n",
    b"BM",
    b"GIF89a",
  ):
    with pytest.raises(images.ImageError):
      images.decode(start + garbage, "x")


def test_upright_rgb_is_kept_to_the_byte():
  for data in (encoded(noise()), encoded(noise(), "JPEG", quality=75)):
    assert images.stored(data, "x") is data


@pytest.mark.parametrize(
  ("file_format", "mode"),
  [
    ("JPEG", "L"),
    ("JPEG", "CMYK"),
    ("PNG", "L"),
    ("PNG", "1"),
    ("PNG", "RGBA"),
    ("PNG", "P"),
    ("WEBP", "RGB"),
    ("BMP", "RGB"),
    ("GIF", "P"),
  ],
)
def test_anything_else_is_kept_as_an_rgb_png_of_the_same_pixels(
  file_format, mode
):
  data = encoded(noise(), file_format, mode)
  kept = images.stored(data, "x")
  image = Image.open(io.BytesIO(kept))
  assert (image.format, image.mode) == ("PNG", "RGB")
  np.testing.assert_array_equal(
    images.decode(kept, "x"), images.decode(data, "x")
  )


def test_squash_averages_what_it_shrinks():
  image = np.repeat(np.array([[[0], [100], [200], [100]]], np.uint8), 3, -1)
  image = np.repeat(image, 2, axis=0)
  small = images.squash(image, 1)
  assert small.shape == (1, 1, 3)
  # A triangle over all four: nearer ones count more; one sample would be 150.
  assert 90 <= small[0, 0, 0] <= 130
  assert images.squash(np.full((5, 9, 3), 77, np.uint8), 4).tolist() == (
    np.full((4, 4, 3), 77).tolist()
  )


def test_squash_leaves_what_fits_alone():
  np.testing.assert_array_equal(images.squash(noise(7, 7), 7), noise(7, 7))


def error(name):
  return images.ImageError(f"{name}: damaged")


def test_without_leave_the_first_bad_image_is_the_error():
  first = error("a.jpg")
  with pytest.raises(images.ImageError) as raised:
    images.Skips().add(first)
  assert raised.value is first


def test_skips_are_counted_and_end_beyond_their_limit():
  skips = images.Skips(4)
  assert skips.summary() == "none skipped"
  for name in "abcd":
    skips.add(error(name))
  assert skips.summary() == (
    "4 skipped: a: damaged; b: damaged; c: damaged; and 1 more"
  )
  with pytest.raises(
    images.ImageError,
    match=r"5 images cannot be used, more than max_skipped=4: a: damaged; "
    r"b: .*and 2 more",
  ):
    skips.add(error("e"))


def test_fewer_than_none_cannot_be_skipped():
  with pytest.raises(ValueError, match="max_skipped=-1 must not be negative"):
    images.Skips(-1)


def photograph(name="china.jpg"):
  """A JPEG of 427×640 pixels, of a temple or a flower, as it was published."""
  return files("sklearn.datasets.images").joinpath(name).read_bytes()


def exact(pixels, box, size, bounded):
  """A box of decoded pixels, resized without rounding."""
  given = jnp.asarray(pixels)[None], jnp.asarray([box], jnp.float32)
  made = augment.resize_boxes(*given, size, bounded=bounded)
  return np.asarray(made[0]) * 255


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize(
  ("box", "size"),
  [
    ((0, 0, 6, 8), 3),
    ((1, 2, 4, 5), 4),
    ((2, 1, 3, 3), 9),
    ((0.5, 1.5, 5, 5), 4),
  ],
)
def test_a_view_is_a_box_of_the_image_resized(box, size, bounded):
  made, used = images.view(
    encoded(noise()), "x", size, lambda _: np.float32(box), bounded=bounded
  )
  assert made.dtype == np.uint8
  np.testing.assert_array_equal(used, np.float32(box))
  # Along each axis it is rounded to 8 bits.
  difference = np.abs(made - exact(noise(), box, size, bounded))
  assert difference.max() <= 1.01


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize(
  ("box", "size", "decoded"),
  [
    ((3, 5, 350, 301), 224, (640, 427)),  # Nothing to leave out.
    ((11, 100, 401, 333), 64, (320, 214)),
    ((0, 0, 427, 640), 40, (160, 107)),
    ((26.7, 133.2, 373.6, 373.6), 20, (80, 54)),
  ],
)
def test_a_large_photograph_is_not_decoded_in_full_and_looks_the_same(
  name, box, size, decoded, monkeypatch
):
  rgb, seen = images._rgb, []
  monkeypatch.setattr(
    images, "_rgb", lambda image: seen.append(image.size) or rgb(image)
  )
  for bounded in (True, False):
    made, _ = images.view(
      photograph(name), "x", size, lambda _: np.float32(box), bounded=bounded
    )
    assert seen.pop() == decoded
    whole = images.decode(photograph(name), "x")
    seen.clear()
    difference = np.abs(made - exact(whole, box, size, bounded))
    # Grey levels of 255.
    assert difference.mean() < 1.5
    assert np.quantile(difference, 0.99) < 8


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "JPEG"])
def test_a_view_is_of_the_upright_image(orientation, file_format):
  exif = Image.Exif()
  exif[0x0112] = orientation
  pixels = np.kron(noise(3, 4), np.ones((8, 8, 1)))
  options = {"quality": 95, "subsampling": 0}
  if file_format != "JPEG":
    options = {"lossless": True}
  data = encoded(pixels, file_format, exif=exif, **options)
  upright = images.decode(data, "x")
  asked = []

  def box_of(size):
    asked.append(size)
    return np.float32([1, 2, 16, 12])

  # Of the JPEG every other pixel of either axis is decoded.
  size = 3 if file_format == "JPEG" else 6
  made, _ = images.view(data, "x", size, box_of)
  assert asked == [upright.shape[:2]]
  difference = np.abs(made - exact(upright, (1, 2, 16, 12), size, bounded=True))
  assert difference.max() < (24 if file_format == "JPEG" else 1.01)


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "LA", "1"])
def test_a_view_has_the_colours_that_decode_gives(mode):
  file_format = "JPEG" if mode == "CMYK" else "PNG"
  data = encoded(smooth(), file_format, mode=mode)
  box = (2, 3, 12, 15)
  made, _ = images.view(data, "x", 6, lambda _: np.float32(box))
  pixels = images.decode(data, "x")
  assert np.abs(made - exact(pixels, box, 6, bounded=True)).max() < 3


def test_the_module_is_light():
  code = (
    "import sys, relvit_jax.data.images\n"
    "print(sorted({'jax', 'tensorflow_datasets', 'grain'} & set(sys.modules)))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == "[]"
