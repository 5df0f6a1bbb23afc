"""Which sizes of a model a config may ask for, and what they give away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from relvit_jax.models import variants

# Keys of the group that every family has, or that are checked on their own.
_SHARED = {
  "backbone",
  "patch_size",
  "pos_embed",
  "cls_token",
  "cls_to_patches",
}


def _family(config: Any) -> Iterator[str]:
  """Keys that the backbone has nothing to do with."""
  model = config.model
  family = variants.FAMILIES[variants.family_of(model.backbone)]
  for key, value in model.items():
    if value is not None and key not in _SHARED and key not in family.names:
      yield f"model.{key}={value!r} must be None: {model.backbone} has none"
  if not family.has_patch_size and model.patch_size is not None:
    yield (
      f"model.patch_size={model.patch_size} must be None: {model.backbone} "
      "cuts its own"
    )
  elif family.has_patch_size and model.patch_size is None:
    yield f"model.patch_size=None: {model.backbone} needs it, in pixels"
  if model.cls_to_patches and not (model.cls_token and family.has_cls_token):
    yield (
      f"model.cls_to_patches=True must be False: {model.backbone} has no class "
      f"token with model.cls_token={model.cls_token}"
    )
  if model.attention_mask == "diagonal_cls_row" and not model.cls_token:
    yield (
      "model.attention_mask='diagonal_cls_row' needs model.cls_token=True: it "
      "is the class token that attends to all"
    )
  if model.pos_embed_type == "sinusoidal" and not model.pos_embed:
    yield (
      "model.pos_embed_type='sinusoidal' needs model.pos_embed=True: without, "
      "there are no positional embeddings of any type"
    )
  sizes = _sizes(config)
  staged = bool(family.per_stage)
  lengths = set()
  for key in ("depth", "num_heads"):
    if isinstance(sizes[key], (tuple, list)) != staged:
      words = "have a number for each stage" if staged else "be one number"
      yield f"model.{key}={sizes[key]} must {words}: {model.backbone}"
    elif staged:
      lengths.add(len(sizes[key]))
  if len(lengths) > 1:
    yield (
      f"model.depth={sizes['depth']} and model.num_heads={sizes['num_heads']} "
      "must have as many numbers: one a stage"
    )


def _patches(config: Any) -> Iterator[str]:
  """How the image is cut, and merged into mega-patches."""
  model, size = config.model, config.data.image_size
  first = model.patch_size
  patch = variants.shown_patch(model.backbone, first, model.depth)
  if size % patch and first is None:
    yield f"data.image_size={size} must be a multiple of 32: {model.backbone}"
  elif size % patch and patch > first:
    yield (
      f"data.image_size={size} must be a multiple of {patch}: of "
      f"model.patch_size={first} times the {patch // first} that "
      f"{model.backbone} merges"
    )
  elif size % patch:
    yield (
      f"model.patch_size={patch} must divide data.image_size={size}; "
      f"{_divisors_near(size, patch)} would"
    )
  mega = config.augment.mega_patches
  if mega and not size % patch and not 2 <= mega <= size // patch:
    yield (
      f"augment.mega_patches={mega} must be 0 or from 2 to the "
      f"{size // patch} patches a side of data.image_size={size} with "
      f"model.patch_size={first}"
    )
  if size // patch < 2 and set(config.tasks) - {"label"}:
    yield (
      f"model.patch_size={first} leaves one patch of data.image_size={size}: "
      f"tasks={tuple(config.tasks)!r} need at least 2×2"
    )


def _windows(config: Any) -> Iterator[str]:
  window = _sizes(config).get("window_size")
  size, first = config.data.image_size, config.model.patch_size
  if window and first and not size % first and window > size // first:
    yield (
      f"model.window_size={window} must be at most {size // first}: "
      f"data.image_size={size} has so many tokens of model.patch_size={first} "
      "a side"
    )


def _widths(config: Any) -> Iterator[str]:
  sizes = _sizes(config)
  width, all_heads = sizes["embed_dim"], sizes["num_heads"]
  # Each stage is twice as wide as the one before.
  staged = isinstance(all_heads, (tuple, list))
  for stage, heads in enumerate(all_heads if staged else [all_heads]):
    if width * 2**stage % heads:
      where = f" of stage {stage + 1}" if staged else ""
      yield (
        f"model.num_heads={heads}{where} must divide model.embed_dim="
        f"{width * 2**stage}; {_divisors_near(width * 2**stage, heads)} would"
      )
  fsdp = config.mesh.fsdp
  if width % fsdp:
    yield (
      f"mesh.fsdp={fsdp} must divide model.embed_dim={width}; "
      f"{_divisors_near(width, fsdp)} would"
    )


def _family_of(config: Any) -> str:
  return variants.family_of(config.model.backbone)


def _sizes(config: Any) -> dict[str, Any]:
  """Those of the variant, and over them those that are given."""
  given = {k: v for k, v in config.model.items() if v is not None}
  return variants.sizes_of(config.model.backbone) | given


def _divisors_near(number: int, wanted: int) -> str:
  """The two divisors nearest to what was wanted, in words."""
  divisors = [n for n in range(1, number + 1) if number % n == 0]
  nearest = sorted(divisors, key=lambda n: abs(n - wanted))[:2]
  return " and ".join(map(str, sorted(nearest)))


def problems(config: Any) -> Iterator[str]:
  """A line for each key that does not fit."""
  missing = list(_family(config))
  yield from missing
  if not missing:
    for rule in (_patches, _windows, _widths):
      yield from rule(config)


def leak(config: Any) -> str | None:
  """One line if the tasks can be solved without looking at the image."""
  positional = [task for task in config.tasks if task != "label"]
  augment = config.augment
  moves = augment.permute_patches and not augment.permute_targets_only
  if not positional or not config.model.pos_embed or moves:
    return None
  tasks = " and ".join(positional)
  if _family_of(config) == "swin":
    source = f"helps with {tasks}: Swin's bias for each offset tells patches"
    source += " at the border from others"
  else:
    source = f"lets {tasks} be read off the positional embeddings"
  return (
    f"leak: model.pos_embed=True {source} without looking at the image; "
    "model.pos_embed=False or augment.permute_patches=True closes it"
  )
