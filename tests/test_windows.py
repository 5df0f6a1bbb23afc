"""Windows of a grid, written out for grids that fit on a page."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from relvit_jax.models import windows


def numbered(rows, columns):
  return np.arange(rows * columns).reshape(1, -1, 1)


def attention(grid_size=(4, 4), window=2, shift=1, **options):
  return windows.WindowAttention(
    6, 2, grid_size, window, shift, rngs=nnx.Rngs(0), **options
  )


def tokens(length=16, batch=2):
  return jax.random.normal(jax.random.key(1), (batch, length, 6))


def test_windows_of_a_grid():
  cut = windows.partition(numbered(2, 6), (2, 6), 2)
  np.testing.assert_array_equal(
    cut[0, :, :, 0],
    [
      [0, 1, 6, 7],
      [2, 3, 8, 9],
      [4, 5, 10, 11],
    ],
  )


@settings(max_examples=20, deadline=None)
@given(
  rows=st.integers(1, 3), columns=st.integers(1, 3), window=st.integers(1, 4)
)
def test_windows_join_to_the_grid_they_were_cut_from(rows, columns, window):
  grid_size = (rows * window, columns * window)
  x = np.random.default_rng(0).normal(size=(2, rows * columns * window**2, 3))
  cut = windows.partition(x, grid_size, window)
  assert cut.shape == (2, rows * columns, window**2, 3)
  np.testing.assert_array_equal(windows.join(cut, grid_size, window), x)


def test_shifted_windows_hold_tokens_from_round_the_edge():
  np.testing.assert_array_equal(
    windows.token_order((4, 4), 2, 1),
    [
      [5, 6, 9, 10],
      [7, 4, 11, 8],
      [13, 14, 1, 2],
      [15, 12, 3, 0],
    ],
  )


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_rolling_and_cutting_is_the_order_of_tokens(shift):
  x = jnp.asarray(numbered(6, 9), jnp.float32)
  rolled = windows.roll(x, (6, 9), -shift)
  np.testing.assert_array_equal(
    windows.partition(rolled, (6, 9), 3)[0, :, :, 0],
    windows.token_order((6, 9), 3, shift),
  )
  np.testing.assert_array_equal(windows.roll(rolled, (6, 9), shift), x)


def test_only_what_meets_in_the_image_is_seen():
  """The four windows above: all of the first, parts of the others."""
  apart = windows.shift_mask((4, 4), 2, 1) != 0
  np.testing.assert_array_equal(
    apart.astype(int),
    [
      [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
      [[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]],
      [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 0, 0]],
      [[0, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]],
    ],
  )
  np.testing.assert_array_equal(
    windows.shift_mask((4, 4), 2, 1)[apart], np.float32(-100)
  )


def test_which_bias_each_pair_of_a_2x2_window_gets():
  """Of nine: row and column of token i less those of j, plus one, in base 3."""
  numbers = jnp.arange(9, dtype=jnp.float32)[:, None]
  np.testing.assert_array_equal(
    windows.pair_biases(numbers, 2)[0],
    [
      [4, 3, 1, 0],
      [5, 4, 2, 1],
      [7, 6, 4, 3],
      [8, 7, 5, 4],
    ],
  )


def test_every_head_has_its_own_biases_for_every_offset():
  table = np.random.default_rng(0).normal(size=(25, 4)).astype(np.float32)
  biases = windows.pair_biases(jnp.asarray(table), 3)
  assert biases.shape == (4, 9, 9)
  row, column = np.divmod(np.arange(9), 3)
  index = (
    5 * (row[:, None] - row[None] + 2) + column[:, None] - column[None] + 2
  )
  np.testing.assert_array_equal(biases, table[index].transpose(2, 0, 1))


def test_weights_are_shares_within_a_window_and_none_outside():
  weights = np.asarray(attention().weights(tokens()))
  assert weights.shape == (2, 2, 16, 16)
  np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
  together = np.zeros((16, 16), bool)
  # Shifted by one, the windows of a 4×4 grid leave a frame one token wide.
  for window in (
    *([0], [3], [12], [15]),
    *([1, 2], [13, 14], [4, 8], [7, 11]),
    [5, 6, 9, 10],
  ):
    together[np.ix_(window, window)] = True
  assert (weights[:, :, together] > 0.01).all()
  np.testing.assert_array_equal(weights[:, :, ~together], 0)


def test_attention_mixes_values_by_its_weights():
  attend, x = attention(), tokens()
  value = attend.qkv(x).reshape(2, 16, 3, 2, 3)[:, :, 2]
  mixed = jnp.einsum("bhij,bjhd->bihd", attend.weights(x), value)
  np.testing.assert_allclose(
    attend(x), attend.proj(mixed.reshape(2, 16, 6)), atol=1e-6
  )


def test_one_window_without_biases_sees_a_set_of_tokens():
  attend = attention((4, 4), window=4, shift=0, relative_bias=False)
  order, x = np.random.default_rng(0).permutation(16), tokens()
  np.testing.assert_allclose(
    attend(x[:, order]), attend(x)[:, order], atol=1e-6
  )
  assert attend.relative_position_bias_table is None


def test_with_biases_their_order_shows():
  attend = attention((4, 4), window=4, shift=0)
  attend.relative_position_bias_table.set_value(
    jax.random.normal(jax.random.key(2), (49, 2))
  )
  order, x = np.random.default_rng(0).permutation(16), tokens()
  assert not np.allclose(attend(x[:, order]), attend(x)[:, order], atol=1e-3)


def test_scores_and_weights_of_bfloat16_are_float32():
  attend = attention(dtype=jnp.bfloat16)
  x = tokens().astype(jnp.bfloat16)
  assert attend.weights(x).dtype == jnp.float32
  assert attend(x).dtype == jnp.bfloat16
