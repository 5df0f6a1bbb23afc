"""The kernels of a block, and the time that a device needs for them."""

import pytest

from relvit_jax.models import kernels

KERNEL = kernels.Kernel("it", flops=100, elements=10, weights=40)


def test_a_block_moves_94_numbers_a_token_and_width():
  """With the MLP four times as wide as the tokens."""
  width, tokens = 384, 65
  block = list(kernels.block(tokens, tokens, width, 4.0))
  forward = sum(k.elements for k in block if not k.backward)
  backward = sum(k.elements for k in block if k.backward)
  assert (forward, backward) == (34 * tokens * width, 60 * tokens * width)


def test_twelve_blocks_of_vit_small_on_an_h100():
  """In bfloat16 at 790 TFLOP/s and 3.0 TB/s, weights aside."""
  blocks = [
    kernel._replace(weights=0) for kernel in kernels.block(65, 65, 384, 4.0)
  ] * 12
  assert kernels.moved_bytes(blocks, 1, 2) / 1e6 == pytest.approx(56.3, abs=0.1)
  least = kernels.seconds(blocks, 1, 790e12, 3.0e12, 2)
  assert least * 1e6 == pytest.approx(19.8, abs=0.05)
  products = sum(kernel.flops for kernel in blocks) / 790e12
  assert products / least == pytest.approx(0.54, abs=0.005)


def test_the_longer_of_computing_and_moving_counts():
  # 2 images: 200 operations, and 20 + 40 numbers of 4 bytes.
  assert kernels.moved_bytes([KERNEL], 2, 4) == 240
  assert kernels.seconds([KERNEL], 2, 10, 1000, 4) == 20
  assert kernels.seconds([KERNEL], 2, 1000, 10, 4) == 24
  assert kernels.seconds([KERNEL] * 2, 2, 1000, 10, 4) == 48


def test_a_product_and_its_gradients():
  made = list(kernels.linear("fc", 5, 2, 3))
  assert [kernel.flops for kernel in made] == [60, 60, 60]
  assert [kernel.elements for kernel in made] == [25, 25, 25]
  assert [kernel.weights for kernel in made] == [6, 6, 6]
  assert [kernel.backward for kernel in made] == [False, True, True]
  (skipped, *_) = kernels.linear("fc", 5, 2, 3, skip=True)
  assert skipped.elements == 40
  assert len(list(kernels.linear("fc", 5, 2, 3, gradients=1))) == 2


def test_adamw_moves_599_megabytes_for_vit_small():
  assert kernels.optimizer_bytes(21_400_000) == 599_200_000


def test_a_product_and_the_gradients_of_its_factors():
  both = [kernel.flops for kernel in kernels.product("x", 3, 4, 5)]
  assert both == [120, 240]
  one = [kernel.flops for kernel in kernels.product("x", 3, 4, 5, gradients=1)]
  assert one == [120, 120]
