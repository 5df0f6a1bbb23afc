"""Every parameter has its place on the mesh, by one table."""

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

import relvit_jax
from relvit_jax.training import partitioning


def params(**options):
  defaults = {"image_size": 8, "patch_size": 2}
  sizes = {"embed_dim": 32, "depth": 2, "num_heads": 2}
  model = relvit_jax.create_model(
    tasks=("relation", "distance", "angle", "position", "label"),
    num_classes=10,
    rngs=nnx.Rngs(0),
    **(defaults | sizes | options),
  )
  return nnx.to_pure_dict(nnx.state(model, nnx.Param))


def test_the_mesh_is_data_times_fsdp():
  mesh = partitioning.make_mesh(fsdp=2)
  assert dict(mesh.shape) == {"data": 4, "fsdp": 2}
  assert mesh.size == 8


def test_matrices_are_split_and_vectors_are_not():
  mesh = partitioning.make_mesh(fsdp=4)
  shardings = partitioning.params_shardings(params(), mesh)
  block = shardings["backbone"]["blocks"][1]
  assert block["attn"]["qkv"]["kernel"].spec == P("fsdp")
  assert block["mlp"]["fc2"]["bias"].spec == P()
  assert shardings["backbone"]["patch_embed"]["proj"]["kernel"].spec == P(
    None, "fsdp"
  )
  assert shardings["heads"]["relation"]["query"]["kernel"].spec == P("fsdp")


@pytest.mark.parametrize("cls_token", [True, False])
@pytest.mark.parametrize("pos_embed", [True, False])
def test_every_parameter_of_every_model_has_a_rule(cls_token, pos_embed):
  mesh = partitioning.make_mesh(fsdp=8)
  tree = params(cls_token=cls_token, pos_embed=pos_embed)
  placed = jax.device_put(tree, partitioning.params_shardings(tree, mesh))
  kernel = placed["backbone"]["blocks"][0]["mlp"]["fc1"]["kernel"]
  assert kernel.addressable_shards[0].data.shape == (4, 128)
  for before, after in zip(
    jax.tree.leaves(tree), jax.tree.leaves(placed), strict=True
  ):
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("pos_embed", [True, False])
def test_every_parameter_of_swin_has_a_rule(pos_embed):
  model = relvit_jax.create_model(
    "swin",
    image_size=32,
    patch_size=4,
    pos_embed=pos_embed,
    rngs=nnx.Rngs(0),
    **{"embed_dim": 16, "depth": (1, 1), "num_heads": (1, 2)},
    window_size=4,
  )
  tree = nnx.to_pure_dict(nnx.state(model, nnx.Param))
  shardings = partitioning.params_shardings(tree, partitioning.make_mesh(8))
  stage = shardings["backbone"]["layers"][0]
  assert stage["downsample"]["reduction"]["kernel"].spec == P("fsdp")
  attention = stage["blocks"][0]["attn"]
  assert attention["qkv"]["kernel"].spec == P("fsdp")
  if pos_embed:
    assert attention["relative_position_bias_table"].spec == P()


def test_matrices_of_localisation_are_split_too():
  for name in ("layers/2", "unshared/1"):
    assert partitioning.spec_of(f"heads/drloc/{name}/kernel") == P("fsdp")
    assert partitioning.spec_of(f"heads/drloc/{name}/bias") == P()


@pytest.mark.parametrize("tokens_type", ["performer", "transformer"])
def test_every_parameter_of_t2t_vit_has_a_rule(tokens_type):
  mesh = partitioning.make_mesh(fsdp=8)
  tree = params(
    backbone="t2t_vit",
    image_size=32,
    patch_size=None,
    token_dim=6,
    tokens_type=tokens_type,
  )
  shardings = partitioning.params_shardings(tree, mesh)
  project = shardings["backbone"]["tokens_to_token"]["project"]["kernel"]
  assert project.spec == P(None, "fsdp")


def test_a_batch_is_split_over_all_devices():
  mesh = partitioning.make_mesh(fsdp=2)
  batch = jax.device_put(np.zeros((16, 3)), partitioning.batch_sharding(mesh))
  assert {s.data.shape for s in batch.addressable_shards} == {(2, 3)}


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (
      lambda: partitioning.make_mesh(3),
      "mesh.fsdp=3 must divide the 8 devices",
    ),
    (
      lambda: partitioning.check_batch(
        "batch_size", 20, partitioning.make_mesh()
      ),
      "batch_size=20 must be a multiple of the 8 devices, such as 16 or 24",
    ),
    (
      lambda: partitioning.spec_of("backbone/blocks/0/attn/gate/kernel"),
      "no rule .* 'backbone/blocks/0/attn/gate/kernel'",
    ),
    (
      lambda: partitioning.params_shardings(
        params(embed_dim=36), partitioning.make_mesh(8)
      ),
      r"axis 0 of backbone/blocks/0/attn/proj/kernel, shape \(36, 36\), is not "
      "a multiple of mesh.fsdp=8",
    ),
  ],
)
def test_what_does_not_divide_is_refused(call, message):
  with pytest.raises(ValueError, match=message):
    call()
