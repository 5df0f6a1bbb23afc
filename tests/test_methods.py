"""Every row of the README's table trains on real images."""

import json
import math

import pytest
from methods import specs

from relvit_jax import cli, config, config_checks
from relvit_jax.models import variants

ROWS = specs()
DATA_SETS = (
  "cifar10",
  "cifar100",
  "svhn",
  "flowers102",
  "tiny_imagenet",
  "imagenet100",
)

TEN_STEPS = {
  "num_steps": 10,
  "eval_every": 10,
  "batch_size": 16,
  "eval_batch_size": 16,
  # Two classes and 40 images each; tests are run on validation images.
  "data.splits.validation": "validation",
}
# What fits into seconds; the slow test has the sizes of the paper.
SMALL = {
  "vit": {"embed_dim": 12, "depth": 1, "num_heads": 2},
  "swin": {
    "embed_dim": 12,
    "patch_size": 8,
    "depth": "1,2",
    "num_heads": "1,2",
    "window_size": 2,
  },
  "t2t_vit": {
    "embed_dim": 12,
    "token_dim": 8,
    "depth": 1,
    "num_heads": 2,
  },
}


def test_the_table_has_the_nine_methods():
  stages = [
    (config.load(found[-1].replace("DATA", "cifar10")), len(found))
    for _, found in ROWS
  ]
  families = [variants.family_of(made.model.backbone) for made, _ in stages]
  assert families == ["vit"] * 3 + ["swin"] * 3 + ["t2t_vit"] * 3
  assert [made.tasks for made, _ in stages] == [
    ("label",),
    ("label",),
    ("label", "relation", "position"),
    *[("label",), ("label", "drloc"), ("label", "relation", "position")] * 2,
  ]
  assert [count for _, count in stages] == [1, 2, 1, 1, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("name", DATA_SETS)
@pytest.mark.parametrize(("row", "found"), ROWS, ids=[row for row, _ in ROWS])
def test_every_row_is_a_config_of_every_data_set(name, row, found, tmp_path):
  for spec in found:
    overrides = []
    if name == "imagenet100":
      overrides.append(f"data.classes={tmp_path}")
    if "finetune" in spec:
      overrides.append(f"init_from={tmp_path}")
    made = config.load(spec.replace("DATA", f"configs/{name}.py"), overrides)
    config_checks.check(made)
    assert made.num_epochs == 100
    is_vit = made.model.backbone.startswith("vit")
    assert made.batch_size == (256 if is_vit else 64)
    assert is_vit or made.data.image_size == 224


def run(spec, data_dir, workdir, **keys):
  """Trains ten steps, and returns the scores on the test split."""
  words = [
    f"--config.{key}={value}"
    for key, value in (TEN_STEPS | {"data.dir": data_dir} | keys).items()
  ]
  assert (
    cli.main(
      [
        "train",
        f"--config={spec.replace('DATA', 'configs/tiny_imagenet.py')}",
        f"--workdir={workdir}",
        *words,
      ]
    )
    == 0
  )
  curve = [
    json.loads(line)
    for line in (workdir / "metrics.jsonl").read_text().splitlines()
  ]
  trained = [record for record in curve if record["split"] == "train"]
  assert trained[-1]["step"] == 10
  assert trained[-1]["gradient_norm"] > 0
  summary = json.loads((workdir / "summary.json").read_text())
  assert summary["last"]["step"] == 10
  return summary["last"]["test"]


def train(found, data_dir, folder, **keys):
  """A row's stages, one after the other; the scores of the last one."""
  start, scores = {}, {}
  for i, spec in enumerate(found):
    scores = run(spec, data_dir, folder / str(i), **(keys | start))
    start = {"init_from": folder / str(i)}
  return scores


def check(scores, found):
  tasks = config.load(found[-1].replace("DATA", "tiny_imagenet")).tasks
  for task in tasks:
    assert math.isfinite(scores[f"loss_{task}"]), task
  assert 0 <= scores["label_top1"] <= 1


@pytest.mark.long
@pytest.mark.parametrize(("row", "found"), ROWS, ids=[row for row, _ in ROWS])
def test_every_row_trains_ten_steps_on_real_images(
  row, found, tiny_imagenet_sample, tmp_path
):
  backbone = config.load(found[0].replace("DATA", "cifar10")).model.backbone
  sizes = SMALL[variants.family_of(backbone)]
  keys = {f"model.{name}": value for name, value in sizes.items()}
  scores = train(
    found,
    tiny_imagenet_sample,
    tmp_path,
    **keys,
    **{"data.image_size": 64},
  )
  check(scores, found)


@pytest.mark.slow
@pytest.mark.parametrize(("row", "found"), ROWS, ids=[row for row, _ in ROWS])
def test_every_row_trains_ten_steps_at_full_size(
  row, found, tiny_imagenet_sample, tmp_path
):
  scores = train(
    found,
    tiny_imagenet_sample,
    tmp_path,
    **{"batch_size": 8, "eval_batch_size": 8},
  )
  check(scores, found)
