"""Leaves by name: described, compared, and known again by their bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import NamedSharding, PartitionSpec

from relvit_jax.training import leaves, partitioning

DTYPES = ("float32", "bfloat16", "float16", "int32", "uint8", "int8", "uint32")


def mixed(word, place):
  word = (word + place * 0x9E3779B1) % 2**32
  word = (word ^ word >> 16) * 0x85EBCA6B % 2**32
  word = (word ^ word >> 13) * 0xC2B2AE35 % 2**32
  return word ^ word >> 16


def test_a_description():
  described = leaves.describe({"a": jnp.array([[5, 6], [7, 8]], jnp.uint8)})
  checksum = sum(mixed(5 + i, i) for i in range(4)) % 2**32
  assert described == {
    "a": {"dtype": "uint8", "shape": [2, 2], "key": None, "checksum": checksum}
  }


def test_a_random_key_is_described_with_its_kind():
  tree = {"key": jax.random.key(7, impl="rbg")}
  (one,) = leaves.describe(tree).values()
  assert (one["dtype"], one["shape"], one["key"]) == ("key<rbg>", [], "rbg")
  plain = leaves.arrays(tree)
  assert plain["key"].dtype == jnp.uint32
  again = leaves.rebuild(tree, leaves.describe(tree), plain)
  assert again["key"].dtype == tree["key"].dtype
  np.testing.assert_array_equal(
    jax.random.uniform(again["key"]), jax.random.uniform(tree["key"])
  )


@pytest.mark.parametrize("dtype", [*DTYPES, "bool"])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (3, 1, 4)])
def test_host_and_device_agree_on_the_checksum(dtype, shape):
  values = np.random.default_rng(0).normal(size=shape) * 50
  array = jnp.asarray(values).astype(dtype)
  described = leaves.describe({"a": array})
  leaves.check_content("here", described, {"a": np.asarray(array)})
  leaves.check_content("here", described, {"a": array})


@given(
  st.sampled_from(DTYPES), st.integers(1, 40), st.integers(0), st.integers(0)
)
def test_one_flipped_bit_is_always_seen(dtype, size, place, bit):
  words = np.random.default_rng(size).integers(0, 256, 4 * size, np.uint8)
  array = words.view(jnp.dtype(dtype))
  described = {"a": {"checksum": int(leaves._checksum(array, np))}}
  leaves.check_content("here", described, {"a": array})
  words[place % words.size] ^= 1 << bit % 8
  with pytest.raises(ValueError, match="here is damaged: not what was saved"):
    leaves.check_content("here", described, {"a": array})


@given(st.integers(2, 30), st.randoms())
def test_swapped_values_are_seen(size, random):
  array = np.arange(size, dtype=np.int32)
  described = {"a": {"checksum": int(leaves._checksum(array, np))}}
  one, other = random.sample(range(size), 2)
  array[[one, other]] = array[[other, one]]
  with pytest.raises(ValueError, match="damaged"):
    leaves.check_content("here", described, {"a": array})


def test_a_changed_sign_is_seen():
  array = np.ones(8, np.float32)
  described = {"a": {"checksum": int(leaves._checksum(array, np))}}
  with pytest.raises(ValueError, match="damaged"):
    leaves.check_content("here", described, {"a": -array})


@pytest.mark.parametrize(
  "spec", [(), ("data",), (None, "fsdp"), ("fsdp", "data"), (("data", "fsdp"),)]
)
def test_the_checksum_does_not_depend_on_the_devices(spec):
  array = jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)), jnp.float32)
  mesh = partitioning.make_mesh(fsdp=4)
  spread = jax.device_put(array, NamedSharding(mesh, PartitionSpec(*spec)))
  assert leaves.describe({"a": spread}) == leaves.describe({"a": array})


def test_no_array_leaves_its_device_for_a_checksum():
  mesh = partitioning.make_mesh(fsdp=8)
  sharding = NamedSharding(mesh, PartitionSpec("fsdp"))
  array = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=sharding)
  text = leaves._on_device.lower(array).compile().as_text()
  assert "f32[8,32]" in text
  assert "f32[64,32]" not in text
  assert "all-gather" not in text


def test_names_become_nested_dicts_with_numbers_for_keys():
  assert leaves.nested({"params/blocks/0/w": 1, "params/blocks/10/w": 2}) == {
    "params": {"blocks": {0: {"w": 1}, 10: {"w": 2}}}
  }


THERE = {"a": jnp.zeros((2, 3)), "b": jnp.zeros((4,))}


@pytest.mark.parametrize(
  ("like", "message"),
  [
    ({"a": THERE["a"]}, r"not wanted: b float32\[4\]"),
    (THERE | {"c": jnp.zeros(())}, r"missing there: c float32\[\]"),
    (
      THERE | {"a": jnp.zeros((3, 2))},
      r"different: a is float32\[2, 3\] there, wanted float32\[3, 2\]",
    ),
    (
      THERE | {"b": jnp.zeros((4,), jnp.bfloat16)},
      r"different: b is float32\[4\] there, wanted bfloat16\[4\]",
    ),
    (
      THERE | {str(i): jnp.zeros(()) for i in range(12)},
      "0 float32.* and 4 more",
    ),
  ],
)
def test_another_form_is_refused(like, message):
  described = leaves.describe(THERE)
  leaves.check_form("there", described, THERE)
  with pytest.raises(ValueError, match=f"there does not fit: .*{message}"):
    leaves.check_form("there", described, like)


def test_a_shape_without_a_place_is_refused():
  with pytest.raises(ValueError, match="a has no sharding"):
    leaves.arrays({"a": jax.ShapeDtypeStruct((2,), jnp.float32)})
