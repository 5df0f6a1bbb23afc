"""relvit models, as typed."""

import dataclasses
import json

import pytest

from relvit_jax import cli
from relvit_jax.analysis import model_table
from relvit_jax.models import variants


def run(capsys, *words):
  status = cli.main(["models", *words])
  return status, capsys.readouterr()


ROW = model_table.Row(
  backbone="t2t_vit_t_24",
  image_size=224,
  patch_size=None,
  tokens=197,
  grid_size=(14, 14),
  parameters=64_028_823,
  head_parameters=541_233,
  forward_flops=29_988_688_368,
  training_flops=89_966_065_104,
  head_training_flops=0,
  activation_bytes={"float32": 1_401_287_980, "bfloat16": 271_725_130},
  compiled_flops=90_000_000_000.0,
)

TABLE = """\
                                 parameters/M   GFLOPs/image    saved/MB    XLA/
model         image tokens pairs    all heads forward  train   f32  bf16 formula
vit_small    112/16    197 14×14  64.03  0.54   29.99  89.97  1401 271.7  1.0004
vit_small    224/32    197 14×14  64.03  0.54   29.99  89.97  1401 271.7  1.0004

t2t_vit_t_24    112    197 14×14  64.03  0.54   29.99  89.97  1401 271.7  1.0004
t2t_vit_t_24    224    197 14×14  64.03  0.54   29.99  89.97  1401 271.7  1.0004

Heads of the tasks relation, position.
image    pixels a side / those of a patch
"""


def test_the_table(capsys, monkeypatch):
  def describe(backbone, image_size, patch_size, *others, **options):
    return dataclasses.replace(
      ROW, backbone=backbone, image_size=image_size, patch_size=patch_size
    )

  monkeypatch.setattr(model_table, "describe", describe)
  status, shown = run(
    capsys,
    *("--backbone", "vit", "t2t_vit_t_24", "vit_small", "--compile"),
    *("--image_size", "112", "224"),
  )
  assert (status, shown.err) == (0, "")
  assert shown.out.startswith(TABLE)
  assert max(map(len, shown.out.splitlines())) <= 80


def test_json_has_a_line_a_model(capsys):
  status, shown = run(
    capsys,
    *("--backbone", "vit", "--image_size", "14"),
    *("--dtype", "bfloat16", "--json"),
  )
  assert status == 0
  (row,) = [json.loads(line) for line in shown.out.splitlines()]
  assert row["backbone"] == "vit_small"
  assert (row["image_size"], row["patch_size"]) == (14, 2)
  assert list(row["activation_bytes"]) == ["bfloat16"]
  assert row["compiled_flops"] is None
  assert row["tasks"] == ["relation", "position"]


def test_what_cannot_be_made_is_named_beside_the_rest(capsys):
  status, shown = run(
    capsys,
    *("--backbone", "vit_tiny", "swin", "t2t_vit"),
    *("--image_size", "16", "--patch_size", "8", "--json"),
  )
  assert status == 0
  assert len(shown.out.splitlines()) == 1
  assert shown.err.splitlines() == [
    "left out: swin_tiny at 16/8: image_size=16×16 must be a multiple of 64: of"
    " patch_size=8, doubled in each stage after the first",
    "left out: t2t_vit_14 at 16/8: patch_size=8 must not be given: t2t_vit_14 "
    "merges its patches to one for every 16 pixels",
  ]


@pytest.mark.parametrize(
  ("words", "message"),
  [
    ("--backbone vot", "--backbone='vot' does not exist; there are vit, swin"),
    ("--tasks labl", "--tasks names 'labl'; there are relation, distance"),
    ("--tasks label", "--tasks label needs --num_classes"),
    ("--tasks label --num_classes 0", "--num_classes=0 must be at least 1"),
    ("--num_classes 4", "--num_classes=4 needs label among --tasks"),
    ("--patch_size 4 0", "--patch_size=0 must be at least 1"),
    ("--image_size -1", "--image_size=-1 must be at least 1"),
    (
      "--backbone vit --image_size 48",
      "no such model can be made:\nvit_small at 48: patch_size=None",
    ),
  ],
)
def test_what_there_is_not_is_refused(words, message, capsys):
  status, shown = run(capsys, *words.split())
  assert status == 2
  assert shown.out == ""
  assert message in shown.err


def test_help_names_all_there_are(capsys):
  with pytest.raises(SystemExit, match="0"):
    cli.main(["models", "--help"])
  shown = " ".join(capsys.readouterr().out.split())
  for name in (*variants.SIZES, *variants.ALL_TASKS):
    assert name in shown
