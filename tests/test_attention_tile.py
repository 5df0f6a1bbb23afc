"""How the tokens of an image become arrays of powers of two."""

import pytest

from relvit_jax.models import attention_tile


@pytest.mark.parametrize(
  ("length", "size", "count", "alone"),
  [
    (65, 64, 64, True),  # 8×8 patches and the class token.
    (64, 64, 64, False),
    (63, 64, 63, False),
    (50, 64, 50, False),  # 7×7 of 32 pixels.
    (33, 32, 32, True),
    (34, 64, 34, False),
    (17, 16, 16, True),
    (16, 16, 16, False),
    (9, 16, 9, False),  # 8 and 1 would be too narrow.
    (2, 16, 2, False),
    (197, 256, 197, False),
  ],
)
def test_most_tokens_make_a_tile_and_one_may_follow(length, size, count, alone):
  assert attention_tile.cut(length) == (size, count, alone)


def test_no_token_is_left_out():
  for length in range(1, 300):
    cut = attention_tile.cut(length)
    assert cut.present + cut.alone == length
    assert cut.present <= cut.size
    assert cut.size >= attention_tile.LEAST
    assert cut.size & (cut.size - 1) == 0
