"""One program for any number of turns, or one for each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from relvit_jax.analysis.timing import Compilations
from relvit_jax.training import repeating


def doubled(x, count):
  return jax.lax.fori_loop(0, count, lambda i, x: x + x, x)


@pytest.mark.parametrize(
  ("platform", "programs"), [("cpu", 1), ("tpu", 1), ("gpu", 3)]
)
def test_only_a_gpu_compiles_for_each_number(platform, programs):
  function = repeating.jit(lambda *given: doubled(*given), platform)
  arrays = [jnp.ones(()) for _ in range(6)]
  jax.block_until_ready(arrays)
  with Compilations() as compiled:
    made = [
      float(function(x, np.int32(count)))
      for x, count in zip(arrays, (1, 2, 5, 1, 2, 5), strict=True)
    ]
  assert made == [2, 4, 32, 2, 4, 32]
  assert compiled.count == programs


@pytest.mark.parametrize(("platform", "is_known"), [("cpu", 0), ("gpu", 1)])
def test_where_numbers_have_programs_xla_knows_the_length(platform, is_known):
  function = repeating.jit(doubled, platform)
  text = function.lower(jnp.ones(()), np.int32(7)).compile().as_text()
  assert ('"known_trip_count":{"n":"7"}' in text) == is_known
