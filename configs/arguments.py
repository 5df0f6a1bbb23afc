"""What follows the colon of `--config=NAME:STAGE,…`."""

import dataclasses

from relvit_jax.models import variants

# What a stage learns. Pre-training sees no labels; the others do.
STAGE_TASKS = {
  "pretrain": ("relation", "position"),
  "finetune": ("label",),
  "joint": ("label", "relation", "position"),
  "supervised": ("label",),
  "linear": ("label",),
}

# What they may be, as printed.
WORDS = (
  "STAGE,BACKBONE,PIXELS,drloc,strong,faithful, all but the first if wanted"
)


@dataclasses.dataclass(frozen=True)
class Arguments:
  """Which run of a data set is meant.

  Attributes:
    stage: a key of STAGE_TASKS.
    backbone: a name for relvit_jax.create_model, or None for the file's own.
    image_size: pixels a side, or None for those that the backbone has on this
      data set in the paper.
    drloc: whether dense relative localisation is a task too.
    strong: whether to train by the recipe of `recipes.strong`.
    faithful: whether every quirk is the official one.
  """

  stage: str = "supervised"
  backbone: str | None = None
  image_size: int | None = None
  drloc: bool = False
  strong: bool = False
  faithful: bool = False

  @property
  def tasks(self) -> tuple[str, ...]:
    """What is learnt."""
    return STAGE_TASKS[self.stage] + ("drloc",) * self.drloc


def parse(text: str) -> Arguments:
  """`joint,swin_tiny,224,drloc` → Arguments; the stage comes first.

  Raises:
    ValueError: there is no such stage or word, one comes twice, or two that
      exclude one another.
  """
  stage, *words = text.split(",") if text else ["supervised"]
  if stage not in STAGE_TASKS:
    raise ValueError(
      f"the stage {stage!r} does not exist; there are {', '.join(STAGE_TASKS)}"
    )
  given: dict[str, str | int | bool] = {}
  for word in words:
    name, value = _read(word, text)
    if name in given:
      raise ValueError(
        f"config arguments {text!r}: {word!r} is one too many; they are {WORDS}"
      )
    given[name] = value
  if "strong" in given and "faithful" in given:
    raise ValueError(
      f"config arguments {text!r}: strong and faithful exclude one another"
    )
  return Arguments(stage, **given)  # pyright: ignore[reportArgumentType]


def _read(word: str, text: str) -> tuple[str, str | int | bool]:
  """(the attribute that a word sets, its value)."""
  if word in ("drloc", "strong", "faithful"):
    return word, True
  if word.isdecimal() and int(word) > 0:
    return "image_size", int(word)
  try:
    variants.sizes_of(word)
  except ValueError as error:
    raise ValueError(
      f"config arguments {text!r}: {error}, or {WORDS}"
    ) from None
  return "backbone", word
