"""A model in numbers: parameters, operations and bytes an image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from relvit_jax.analysis import hlo, residuals
from relvit_jax.models import flops, head_kernels, relvit, variants
from relvit_jax.training import model_arrays, objectives
from relvit_jax.training.localisation import Localisation

# What RelViT is trained at: (image size, patch size) in pixels. 32, 64 and
# 224 are in the paper's tables, the other ViTs among the official scripts.
PAPER_SIZES: dict[str, tuple[tuple[int, int | None], ...]] = {
  "vit": (
    (14, 2),
    (28, 4),
    (32, 4),
    (36, 4),
    (56, 8),
    (64, 8),
    (112, 16),
    (224, 32),
  ),
  "swin": ((224, 4),),
  "t2t_vit": ((224, None),),
}

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

# Neither an axis of length 1, which XLA leaves out, nor more than is needed to
# make what a batch costs once small.
_BATCH = 8


@dataclasses.dataclass(frozen=True)
class Row:
  """A model at an image size; operations and bytes are of one image.

  Attributes:
    backbone: its name.
    image_size: pixels, square.
    patch_size: pixels, None for T2T-ViT.
    tokens: in the blocks, the class token included; Swin's in its first stage.
    grid_size: (rows, columns) of the patches that the pair heads see.
    parameters: that are trained.
    head_parameters: of those, what the heads have.
    forward_flops: of matrix products, by formula.
    training_flops: forward and backward.
    head_training_flops: of those, what the heads have.
    activation_bytes: by compute type, what the backward pass keeps.
    compiled_flops: of the matrix products in the training step that XLA
      compiles for a CPU; None if none was compiled.
  """

  backbone: str
  image_size: int
  patch_size: int | None
  tokens: int
  grid_size: tuple[int, int]
  parameters: int
  head_parameters: int
  forward_flops: int
  training_flops: int
  head_training_flops: int
  activation_bytes: dict[str, int]
  compiled_flops: float | None = None


def combinations(
  backbone: str,
  image_sizes: Sequence[int] | None = None,
  patch_sizes: Sequence[int] | None = None,
) -> Iterator[tuple[int, int | None]]:
  """(image size, patch size) to make a backbone with; maybe not all can be.

  Those of the paper; of them the ones with the given image or patch sizes,
  and the backbone's only patch, or only image, for another; all pairs if both
  are given.

  Raises:
    ValueError: there is no such backbone.
  """
  known = PAPER_SIZES[variants.family_of(backbone)]
  all_patches = list(dict.fromkeys(patch for _, patch in known))
  all_images = list(dict.fromkeys(image for image, _ in known))
  if image_sizes is not None and patch_sizes is not None:
    yield from ((i, p) for i in image_sizes for p in patch_sizes)
  elif image_sizes is not None:
    only = all_patches[0] if len(all_patches) == 1 else None
    for image in image_sizes:
      yield from [pair for pair in known if pair[0] == image] or [(image, only)]
  elif patch_sizes is not None:
    for patch in patch_sizes:
      yield from [pair for pair in known if pair[1] == patch] or [
        (image, patch) for image in all_images
      ]
  else:
    yield from known


def describe(
  backbone: str,
  image_size: int,
  patch_size: int | None,
  tasks: Sequence[str],
  num_classes: int | None = None,
  *,
  dtypes: Sequence[str] = tuple(DTYPES),
  compiles: bool = False,
  **sizes: Any,
) -> Row:
  """The numbers of a model; no array is made.

  Args:
    backbone: a variant or a family.
    image_size: pixels, of square images.
    patch_size: pixels, None for T2T-ViT.
    tasks: those with a head.
    num_classes: needed by the label task.
    dtypes: what to compute in, for the bytes.
    compiles: whether to compile the training step, which takes seconds.
    **sizes: override the variant's, as in `create_model`.

  Raises:
    ValueError: there is no such model.
  """

  model = nnx.eval_shape(
    lambda: relvit.create_model(
      backbone,
      image_size=image_size,
      patch_size=patch_size,
      tasks=tasks,
      num_classes=num_classes,
      rngs=nnx.Rngs(0),
      **sizes,
    )
  )
  _, params, _ = model_arrays.split_model(model)
  cost = flops.per_image(
    backbone, image_size, patch_size, tasks, num_classes, **sizes
  )
  return Row(
    backbone=backbone,
    image_size=image_size,
    patch_size=patch_size,
    tokens=cost.tokens,
    grid_size=model.grid_size,
    parameters=_count(params),
    head_parameters=_count(params["heads"]),
    forward_flops=cost.total.forward,
    training_flops=cost.total.training,
    head_training_flops=sum(head.training for head in cost.heads.values()),
    activation_bytes={
      dtype: activation_bytes(model, image_size, dtype) for dtype in dtypes
    },
    compiled_flops=compiled_flops(model, image_size) if compiles else None,
  )


def activation_bytes(model: relvit.RelViT, image_size: int, dtype: str) -> int:
  """What the gradient of the losses keeps of one image.

  Args:
    model: of arrays or of shapes, whatever it computes in.
    image_size: pixels, of square images.
    dtype: a name in DTYPES.
  """
  # Making it anew in each type would take as long as all the rest.
  model = nnx.with_attributes(model, dtype=DTYPES[dtype])
  batch = 2  # Of one image alone less is kept: its axis is broadcast.
  loss, arguments = _training_loss(model, image_size, batch)
  return residuals.saved_bytes(loss, *arguments) // batch


def compiled_flops(model: relvit.RelViT, image_size: int) -> float:
  """Operations an image in the matrix products of a compiled training step.

  Losses and gradients are compiled for the CPU and not run.
  """
  loss, arguments = _training_loss(model, image_size, _BATCH)
  with jax.default_device(jax.devices("cpu")[0]):
    program = jax.jit(jax.value_and_grad(loss)).lower(*arguments).compile()
  text = program.as_text()
  assert text is not None
  return hlo.dot_flops(text) / _BATCH


def _training_loss(
  model: relvit.RelViT, image_size: int, batch: int
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
  """(loss, shapes of its arguments), the parameters first."""
  graphdef, params, fixed = model_arrays.split_model(model)

  def loss(
    params: Any, fixed: Any, images: Any, labels: Any, key: Any
  ) -> jax.Array:
    made = model_arrays.merge_model(graphdef, params, fixed)
    pairs = None
    if "drloc" in made.heads:
      pairs = Localisation(head_kernels.NUM_PAIRS).draw(
        key, batch, model.grid_size
      )
    outputs = made(images, train=True, rngs=nnx.Rngs(dropout=key), pairs=pairs)
    losses = objectives.losses(
      outputs, {"label": labels}, model.grid_size, pairs=pairs
    )
    return losses["total"]

  side = image_size
  images = jax.ShapeDtypeStruct((batch, side, side, 3), jnp.float32)
  labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
  key = jax.eval_shape(lambda: jax.random.key(0))
  return loss, (params, fixed, images, labels, key)


def _count(params: Any) -> int:
  return sum(leaf.size for leaf in jax.tree.leaves(params))
