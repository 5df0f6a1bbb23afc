"""Configs: found by name and by path, complete, and locked."""

import pathlib

import pytest

from relvit_jax import config
from relvit_jax.models import relvit

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"


@pytest.mark.parametrize(
  "stage", ["pretrain", "finetune", "joint", "supervised"]
)
def test_a_config_by_name_is_that_of_its_file(stage):
  by_name = config.load(f"digits:{stage}")
  by_path = config.load(f"{CONFIGS / 'digits.py'}:{stage}")
  assert by_name.to_dict() == by_path.to_dict()


def test_stages_differ_in_what_they_learn():
  tasks = {
    stage: set(config.load(f"digits:{stage}").tasks)
    for stage in ("pretrain", "finetune", "joint", "supervised")
  }
  assert tasks["pretrain"] == {"relation", "position"}
  assert tasks["finetune"] == tasks["supervised"] == {"label"}
  assert tasks["joint"] == tasks["pretrain"] | tasks["finetune"]


def test_pretraining_has_no_positional_embedding_to_read_the_answer_from():
  assert not config.load("digits:pretrain").model.pos_embed
  assert config.load("digits:finetune").model.pos_embed


def test_every_task_has_a_weight():
  assert set(config.load("digits").loss.weights) == set(relvit.TASKS)


def test_a_mistyped_key_is_an_error():
  with pytest.raises(AttributeError, match="batchsize"):
    config.load("digits").batchsize = 3


def test_fine_tuning_and_supervised_training_are_the_same_recipe():
  """So that their comparison shows nothing but the pre-training."""
  assert (
    config.load("digits:finetune").to_dict()
    == config.load("digits:supervised").to_dict()
  )


@pytest.mark.parametrize(
  ("spec", "message"),
  [
    ("digit", "config='digit' does not exist; there are digits"),
    ("digits:train", "stage 'train' does not exist; there are pretrain"),
    ("configs/none.py", "config='configs/none.py': there is no such file"),
    ("common", "config='common' does not exist"),
  ],
)
def test_what_is_no_config_is_refused(spec, message):
  with pytest.raises(ValueError, match=message):
    config.load(spec)


def test_a_file_must_return_a_config(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text("def get_config():\n  return {'lr': 1}\n")
  with pytest.raises(ValueError, match="returned dict, not a ConfigDict"):
    config.load(str(path))
