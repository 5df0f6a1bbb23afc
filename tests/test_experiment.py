"""Whole runs from the command line, on data sets that our builders prepare."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import chex
import jax
import numpy as np
import PIL.Image
import pytest
from tiny_runs import RANDOM, typed

from relvit_jax import cli, config
from relvit_jax.data import sources
from relvit_jax.training import checkpoint, experiment, logs, waiting
from relvit_jax.training.stage import Stage
from relvit_jax.training.trained import Trained

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Scanned digits as PNG files: train/<class>/*, test/<class>/*."""
  root = tmp_path_factory.mktemp("images") / "scans"
  for part, count in (("train", 90), ("test", 20)):
    split = sources.digits()[part]
    for i in range(count):
      name = split.class_names[split.labels[i]]
      (root / part / name).mkdir(parents=True, exist_ok=True)
      PIL.Image.fromarray(split.images[i]).save(root / part / name / f"{i}.png")
  return root


@pytest.fixture(scope="module")
def options(folder):
  """For the config `folder`, at the size of the scans."""
  return {
    "data.folder": folder,
    "data.dir": folder.parent / "prepared",
    "data.stored_size": 8,
    "data.image_size": 8,
    "model.patch_size": 2,
  }


@pytest.fixture(scope="module")
def pretrained(folder, options):
  workdir = folder.parent / "pretrained"
  assert cli.main(typed("folder:pretrain", workdir, **options)) == 0
  return workdir


def records(workdir):
  """All that was logged, without the times."""
  return [
    {key: value for key, value in record.items() if key != "time"}
    for record in logs.read(workdir)
  ]


def test_a_run_leaves_config_curves_checkpoints_and_summary(pretrained):
  names = {path.name.split(".")[0] for path in pretrained.iterdir()}
  assert names == {"config", "metrics", "events", "checkpoints", "summary"}
  steps = {
    split: [r["step"] for r in records(pretrained) if r["split"] == split]
    for split in ("train", "validation")
  }
  assert steps == {"train": [2, 4, 6, 8], "validation": [4, 8]}
  summary = json.loads((pretrained / "summary.json").read_text())
  assert summary["last"]["step"] == 8
  for part in ("validation", "test"):
    assert 0 < summary["best"][part]["loss_total"] < 10
    assert 0 < summary["last"][part]["relation_accuracy"] < 1


@pytest.mark.parametrize("stage", ["finetune", "linear"])
def test_stages_go_on_from_a_work_directory(
  stage, pretrained, options, tmp_path, capsys
):
  keys = options | {"init_from": pretrained}
  assert cli.main(typed(f"folder:{stage}", tmp_path / "run", **keys)) == 0
  said = capsys.readouterr().out
  assert f"weights of {pretrained / 'checkpoints'}, step" in said
  assert "taken: 17 arrays of the backbone" in said
  assert "fresh: backbone/pos_embed (not in the source); heads/label" in said
  assert "left: heads/position/proj, heads/relation/key" in said
  _, params, fixed = checkpoint.read(tmp_path / "run")
  _, best = checkpoint.find(pretrained, "best")
  _, source, _ = checkpoint.read(pretrained, best)
  theirs = source["backbone"]["blocks"][0]["mlp"]["fc1"]["kernel"]
  trained = fixed if stage == "linear" else params
  ours = trained["backbone"]["blocks"][0]["mlp"]["fc1"]["kernel"]
  assert (ours == theirs).all() == (stage == "linear")


@pytest.mark.parametrize("stage", ["finetune", "linear"])
def test_a_stage_starts_from_the_average_of_a_run_and_keeps_its_own(
  stage, joint_run, tmp_path
):
  keys = {"init_from": joint_run, "optimizer.ema_decay": 0.9}
  run = tmp_path / "run"
  assert cli.main(typed(f"digits:{stage}", run, **keys)) == 0
  _, _, fixed = checkpoint.read(run)
  _, best = checkpoint.find(joint_run, "best")
  _, average, _ = checkpoint.read(joint_run, best)
  if stage == "linear":
    chex.assert_trees_all_equal(fixed["backbone"], average["backbone"])
  # What is read answers as the run itself did.
  scores = Trained(run).evaluate(sources.digits()["test"])
  summary = json.loads((run / "summary.json").read_text())
  assert scores == pytest.approx(summary["last"]["test"], rel=1e-5)


def test_weights_of_another_family_are_refused(joint_run, tmp_path, capsys):
  keys = {
    "init_from": joint_run,
    "data.image_size": 64,
    "model.embed_dim": 12,
    "model.depth": 1,
    "model.num_heads": 2,
    "model.token_dim": 4,
    "model.backbone": "t2t_vit",
    "model.patch_size": None,
    "augment.crop": "resized",
  }
  assert cli.main(typed("digits:finetune", tmp_path / "run", **keys)) == 2
  assert "has the weights of a vit, from which model.backbone='t2t_vit'" in (
    capsys.readouterr().err
  )


@pytest.mark.parametrize("stage", ["joint", "supervised"])
def test_stages_that_start_from_nothing(stage, options, tmp_path, capsys):
  run = tmp_path / "run"
  assert cli.main(typed(f"folder:{stage}", run, **options)) == 0
  said = capsys.readouterr().out
  assert re.search(r"train: \d+ images, scans", said)
  assert "last, step 8, test: loss" in said
  assert "best, step" in said
  assert ("leak: relation and position" in said) == (stage == "joint")
  assert f"curves: {run / 'metrics.jsonl'}" in said


def test_unlabelled_images_can_be_pretrained_on_and_not_classified(
  tmp_path, options, capsys
):
  root = tmp_path / "loose"
  root.mkdir()
  for i, image in enumerate(sources.digits()["train"].images[:40]):
    PIL.Image.fromarray(image).save(root / f"{i}.png")
  keys = options | {"data.folder": root}
  run = tmp_path / "run"
  assert cli.main(typed("folder:joint", run, **keys)) == 2
  assert "learn labels, and" in capsys.readouterr().err
  # The directory of what could not begin is free for what can.
  assert cli.main(typed("folder:pretrain", run, **keys)) == 0


def test_a_killed_run_goes_on_as_if_nothing_had_happened(
  joint_run, tmp_path, capsys
):
  """kill -9 in the middle; the same command again; the same bits."""
  workdir = tmp_path / "run"
  words = typed("digits:joint", workdir, **RANDOM)
  process = subprocess.Popen(
    [sys.executable, "-m", "relvit_jax.cli", *words],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  # Its second checkpoint is whole; what comes after it is lost.
  while process.poll() is None and not (workdir / "checkpoints/40").is_dir():
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  assert process.wait() == -signal.SIGKILL
  assert cli.main(words) == 0
  assert re.search(r"resumes at step \d+ of 120", capsys.readouterr().out)
  assert records(workdir) == records(joint_run)
  ours, theirs = (checkpoint.read(run) for run in (workdir, joint_run))
  for one, other in zip(
    jax.tree.leaves(ours[1:]), jax.tree.leaves(theirs[1:]), strict=True
  ):
    np.testing.assert_array_equal(one, other)


def test_a_finished_run_is_summarised_again_and_not_trained(joint_run, capsys):
  before = (joint_run / logs.FILE).read_bytes()
  assert cli.main(typed("digits:joint", joint_run, **RANDOM)) == 0
  said = capsys.readouterr().out
  assert "resumes at step 120 of 120" in said
  assert "best, step" in said
  assert (joint_run / logs.FILE).read_bytes() == before


def test_a_signal_while_it_is_summarised_ends_it_in_order(
  joint_run, monkeypatch, capsys
):
  evaluate = Stage.evaluate

  def told(*given):
    os.kill(os.getpid(), signal.SIGTERM)
    return evaluate(*given)

  words = typed("digits:joint", joint_run, **RANDOM)
  with monkeypatch.context() as patch:
    patch.setattr(Stage, "evaluate", told)
    assert cli.main(words) == 128 + signal.SIGTERM
  assert "stopped between two batches of an eval" in capsys.readouterr().err
  assert cli.main(words) == 0


def test_another_config_in_the_same_directory_is_refused(joint_run, capsys):
  words = typed("digits:joint", joint_run, **RANDOM | {"optimizer.lr": 0.1})
  assert cli.main(words) == 2
  assert "optimizer.lr: 0.003 there, 0.1 asked for" in capsys.readouterr().err


def test_a_damaged_checkpoint_stops_it_by_name(joint_run, tmp_path):
  """In a process of its own: Orbax's reads end when another test runs."""
  workdir = tmp_path / "copy"
  shutil.copytree(joint_run, workdir)
  for path in (workdir / "checkpoints" / "120" / "weights").rglob("*"):
    if path.is_file() and path.stat().st_size > 5_000:
      data = bytearray(path.read_bytes())
      data[len(data) // 2] ^= 1
      path.write_bytes(data)
  words = typed("digits:joint", workdir, **RANDOM)
  ended = subprocess.run(
    [sys.executable, "-m", "relvit_jax.cli", *words],
    capture_output=True,
    text=True,
    check=False,
  )
  assert ended.returncode == 2
  assert str(workdir / "checkpoints" / "120") in ended.stderr


def test_the_best_is_chosen_by_labels_or_by_the_loss():
  assert experiment.best_metric(("relation",)) == ("loss_total", "min")
  assert experiment.best_metric(("label", "angle")) == ("label_top1", "max")


def test_batches_that_devices_cannot_share_are_refused(tmp_path, capsys):
  words = typed("digits:joint", tmp_path / "run", batch_size=12)
  assert cli.main(words) == 2
  assert "batch_size=12 must be a multiple of the 8 devices" in (
    capsys.readouterr().err
  )
  assert not (tmp_path / "run").exists()


def test_a_stream_that_limits_a_run_is_named_in_its_summary(
  tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(waiting, "SIGNIFICANT", -1)
  for feed in ("streaming", "resident"):
    run = tmp_path / feed
    keys = {"data.feed": feed, "steps_per_dispatch": 2}
    assert cli.main(typed("digits:supervised", run, **keys)) == 0
    streams = feed == "streaming"
    said = capsys.readouterr().out
    assert ("\nthe feed is the limit: it gives " in said) == streams
    shares = ["feed_wait_share" in r for r in records(run)]
    assert any(shares) == streams


def real_keys(data_dir, **more):
  return {
    "data.dir": data_dir,
    "model.patch_size": 8,
    "augment.patch_jitter": 0.8,
    "augment.patch_grey": 0.2,
  } | more


def test_cifar10_trains_through_the_folder_builder(cifar_sample, tmp_path):
  keys = real_keys(
    tmp_path / "prepared",
    **{
      "data.folder": cifar_sample,
      "data.stored_size": 32,
      "data.image_size": 32,
    },
  )
  pretrain = tmp_path / "pretrain"
  assert cli.main(typed("folder:pretrain", pretrain, **keys)) == 0
  keys |= {"init_from": pretrain}
  assert cli.main(typed("folder:finetune", tmp_path / "run", **keys)) == 0
  summary = json.loads((tmp_path / "run" / "summary.json").read_text())
  assert 0 <= summary["last"]["test"]["label_top1"] <= 1


def test_the_config_in_the_directory_is_the_one_that_ran(joint_run):
  there = config.from_json((joint_run / "config.json").read_text())
  assert there.augment.permute_patches is True
  assert there.model.depth == 1
  assert pathlib.Path(joint_run).is_dir()
