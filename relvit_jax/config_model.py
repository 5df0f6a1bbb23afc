"""Which sizes of a model a config may ask for, and what they give away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from relvit_jax import config_limits
from relvit_jax.models import stages, variants

# Keys of the group that every family has, or that are checked on their own.
_SHARED = {
  "backbone",
  "patch_size",
  "pos_embed",
  "cls_token",
  "cls_to_patches",
  "dtype",
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
  if model.attention not in (None, "einsum"):
    for key in ("attention_mask", "attention_dropout_rate"):
      if model[key]:
        yield (
          f"model.attention={model.attention!r} has no model.{key}="
          f"{model[key]!r}; 'einsum' has"
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
  patch = variants.shown_patch(model.backbone, model.patch_size, model.depth)
  if size % patch:
    yield _uneven(config, patch)
    return
  mega = config.augment.mega_patches
  if mega and not 2 <= mega <= size // patch:
    yield (
      f"augment.mega_patches={mega} must be 0 or from 2 to the "
      f"{size // patch} patches of {patch}×{patch} a side of data.image_size="
      f"{size}"
    )
  crop = config.augment.patch_crop
  if crop > 1 and round(patch / crop) < 1:
    yield (
      f"augment.patch_crop={crop} leaves nothing of patches of {patch}×{patch};"
      f" it must be below {2 * patch}"
    )
  if size == patch and set(config.tasks) - {"label"}:
    yield (
      f"data.image_size={size} is one patch, of {patch}×{patch}: "
      f"tasks={tuple(config.tasks)!r} need at least 2×2 with {model.backbone}"
    )


def _uneven(config: Any, patch: int) -> str:
  size, first = config.data.image_size, config.model.patch_size
  if first is None:
    return (
      f"data.image_size={size} must be a multiple of {patch}: "
      f"{config.model.backbone}"
    )
  if patch > first:
    return (
      f"data.image_size={size} must be a multiple of {patch}: of "
      f"model.patch_size={first} times the {patch // first} that "
      f"{config.model.backbone} merges"
    )
  return (
    f"model.patch_size={patch} must divide data.image_size={size}; "
    f"{_divisors_near(size, patch)} would"
  )


def _windows(config: Any) -> Iterator[str]:
  model, sizes = config.model, _sizes(config)
  if "window_size" not in sizes:
    return
  patch = variants.shown_patch(model.backbone, model.patch_size, model.depth)
  side = config.augment.mega_patches * patch or config.data.image_size
  if side % patch:
    return
  grids = stages.stage_grids(
    (side, side), model.patch_size, len(sizes["depth"])
  )
  try:
    stages.window_sizes(grids, sizes["window_size"])
  except ValueError as error:
    yield f"model.{error} for {side} pixels in patches of {model.patch_size}"


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
  hidden = int(width * sizes.get("mlp_ratio", 4.0))
  if hidden < 1:
    yield (
      f"model.mlp_ratio={sizes['mlp_ratio']} times model.embed_dim={width} "
      "must be at least 1"
    )
  last = width * 2 ** (len(all_heads) - 1) if staged else width
  if "relation" in config.tasks and last < 9:
    yield (
      f"model.embed_dim={width} must be at least 9 for the task relation, "
      "which has nine scores"
    )
  fsdp = config.mesh.fsdp
  split = {"model.embed_dim": width, "the MLPs' width": hidden}
  if "drloc" in config.tasks:
    split["the width of drloc's layers"] = 512
  for what, length in split.items():
    if length % fsdp:
      yield (
        f"mesh.fsdp={fsdp} must divide {what}={length}; "
        f"{_divisors_near(length, fsdp)} would"
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


def leaks(config: Any) -> Iterator[str]:
  """A line for each way to solve the tasks without looking at what is shown."""
  positional = [task for task in config.tasks if task != "label"]
  if not positional:
    return
  tasks, augment = " and ".join(positional), config.augment
  family, sources = _family_of(config), []
  if config.model.pos_embed and family == "swin":
    # Its tokens know no place, but windows end at the border.
    sources.append("Swin's bias for each offset tells border patches apart")
  elif config.model.pos_embed:
    sources.append("positional embeddings tell every patch apart")
  if family == "t2t_vit":
    sources.append("T2T-ViT's first tokens see zeros around the image")
  if sources and not (
    augment.permute_patches and not augment.permute_targets_only
  ):
    closing = "augment.permute_patches=True closes it"
    if family != "t2t_vit":
      closing = f"model.pos_embed=False or {closing}"
    yield (
      f"leak: {tasks} can be told, or guessed better, without looking at the "
      f"image: {', and '.join(sources)}; {closing}"
    )
  native = config_limits.NATIVE_SIZES.get(
    config.data.name, config.data.stored_size
  )
  if augment.crop == "resized" and native < config.data.image_size:
    # A small Swin that was trained so on CIFAR-10, enlarged to 64 pixels and
    # permuted, tells 84 % of the relations of new images that are cropped and
    # 59 % of those that are not.
    yield (
      f"leak: crops of {native} pixels, enlarged to {config.data.image_size}, "
      f"show {tasks} in how their pixels are interpolated, permuted or not; "
      "augment.crop=none closes it"
    )
