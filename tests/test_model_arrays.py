"""A model taken apart into arrays, and put together again."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tiny_models import create

from relvit_jax.training import model_arrays


def test_split_and_merge_are_inverse():
  model = create(nnx.Rngs(0))
  graphdef, params, fixed = model_arrays.split_model(model)
  images = jnp.ones((1, 8, 8, 3))
  merged = model_arrays.merge_model(graphdef, params, fixed)
  np.testing.assert_array_equal(merged(images)["label"], model(images)["label"])
  assert fixed == {}


def test_with_heads_only_the_backbone_is_fixed():
  model = create(nnx.Rngs(0))
  graphdef, params, fixed = model_arrays.split_model(model, heads_only=True)
  assert (set(params), set(fixed)) == ({"heads"}, {"backbone"})
  _, everything, _ = model_arrays.split_model(model)
  joined = model_arrays.joined(params, fixed)
  assert jax.tree.structure(joined) == jax.tree.structure(everything)
  assert model_arrays.picked(joined, params) == params
  images = jnp.ones((1, 8, 8, 3))
  merged = model_arrays.merge_model(graphdef, params, fixed)
  np.testing.assert_array_equal(merged(images)["label"], model(images)["label"])
