"""The experiment behind `relvit quickstart`: three arms on the digits."""

from __future__ import annotations

import datetime
import json
import pathlib
import platform
import resource
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any, NamedTuple

import jax
from tqdm import tqdm

from relvit_jax import config
from relvit_jax.analysis import comparison, quickstart_page, report
from relvit_jax.data import sources
from relvit_jax.training import loop, metrics, partitioning
from relvit_jax.training.stage import Stage

PRETRAIN_FACTOR = 4  # Steps without labels for one with.

_PRETEXT = {
  "relation_accuracy": "relation of every pair of patches",
  "position_accuracy": "position of every patch",
}

Runs = dict[str, list[comparison.Run]]  # By the name of the arm.


class Outcome(NamedTuple):
  """Both tables, what the first says in a sentence, and how it was made."""

  arms: report.Table
  pretext: report.Table
  verdict: str
  facts: dict[str, str]
  folder: pathlib.Path

  def __str__(self) -> str:
    return (
      f"{self.arms}\n\n{self.pretext}\n\n{self.verdict}\n\n"
      f"Took {self.facts['time']}, at most {self.facts['memory']}.\n"
      f"Open {self.folder / 'index.html'}; the numbers are in "
      f"{self.folder / 'results.json'}."
    )


def run(
  workdir: pathlib.Path,
  num_seeds: int,
  steps: int,
  pretrain_steps: int | None = None,
) -> Outcome:
  """Trains all arms and writes the page.

  Args:
    workdir: made if need be; files of an earlier run are overwritten.
    num_seeds: runs of each arm.
    steps: labelled steps.
    pretrain_steps: without labels; None for PRETRAIN_FACTOR times as many.
  """
  began = time.perf_counter()
  workdir.mkdir(parents=True, exist_ok=True)
  splits = sources.digits()
  arms = make_arms(splits, steps, pretrain_steps)
  supervised, relvit, longer = arms
  print(_headline(splits, relvit))

  runs = {arm.name: _run_seeds(arm, num_seeds, splits["test"]) for arm in arms}
  ours = runs[relvit.name]
  verdict = comparison.verdict(
    comparison.difference(ours, runs[supervised.name]),
    comparison.difference(ours, runs[longer.name]),
  )
  assert relvit.pretrain
  pretext = _pretext_scores(relvit.pretrain, ours, splits["test"])
  tables = (
    arms_table(arms, runs, relvit),
    pretext_table(pretext, relvit.pretrain.grid_size),
  )
  facts = _facts(splits, relvit, num_seeds, time.perf_counter() - began)
  _write_json(workdir / "results.json", arms, runs, pretext, verdict, facts)
  quickstart_page.write(
    workdir, arms, runs, splits["test"], tables, verdict, facts
  )
  return Outcome(*tables, verdict, facts, workdir)


def make_arms(
  splits: dict[str, sources.Split],
  steps: int,
  pretrain_steps: int | None = None,
) -> tuple[comparison.Arm, comparison.Arm, comparison.Arm]:
  """(supervised, RelViT, supervised for as long as RelViT)."""
  before = pretrain_steps or PRETRAIN_FACTOR * steps
  stages: dict[str, Stage] = {}

  def stage(name: str, num_steps: int) -> Stage:
    settings = config.load(f"digits:{name}")
    settings.num_steps = num_steps
    # Ten points a curve, wherever a dispatch ends.
    dispatch = settings.steps_per_dispatch
    settings.eval_every = max(dispatch, num_steps // 10 // dispatch * dispatch)
    # Fine-tuning and supervised training are one recipe, compiled once: they
    # differ in where the weights come from, which a stage does not ask.
    settings.update(stage="supervised", init_checkpoint="last")
    recipe = settings.to_json(sort_keys=True)
    if recipe not in stages:
      stages[recipe] = Stage(
        settings,
        splits["train"],
        partitioning.mesh_for(settings.batch_size, settings.eval_batch_size),
      )
    return stages[recipe]

  return (
    comparison.Arm("supervised", None, stage("supervised", steps)),
    comparison.Arm(
      "RelViT pre-training → fine-tuning",
      stage("pretrain", before),
      stage("finetune", steps),
    ),
    comparison.Arm(
      "supervised, as long as both",
      None,
      stage("supervised", before + steps),
    ),
  )


def arms_table(
  arms: Sequence[comparison.Arm],
  runs: Runs,
  reference: comparison.Arm,
) -> report.Table:
  """Accuracy of every arm, and what `reference` gains over it."""
  rows = []
  for arm in arms:
    gain = comparison.difference(runs[reference.name], runs[arm.name])
    rows.append(
      (
        arm.name,
        f"{arm.labelled_steps:,}",
        f"{arm.all_steps:,}",
        f"{comparison.summarise([r.accuracy for r in runs[arm.name]])}",
        "" if arm is reference else gain.signed,
      )
    )
  return report.Table(
    ("", "labelled steps", "all steps", "test accuracy %", "RelViT's gain"),
    rows,
  )


def _run_seeds(
  arm: comparison.Arm, num_seeds: int, test: sources.Split
) -> list[comparison.Run]:
  runs = []
  for seed in range(num_seeds):
    # In a log file the bar would be noise: there only the result is written.
    with tqdm(
      total=arm.all_steps, unit="step", disable=None, leave=False
    ) as bar:
      bar.set_description(f"{arm.name}, seed {seed}")

      def advance(done: int, means: loop.Means, bar: tqdm = bar) -> None:
        bar.set_postfix(loss=f"{means['loss_total']:.3f}", refresh=False)
        bar.update(done - bar.n)

      runs.append(comparison.run_arm(arm, seed, test, advance))
    tqdm.write(
      f"{arm.name}, seed {seed}: {100 * runs[-1].accuracy:.1f} % "
      f"in {runs[-1].seconds:.1f} s"
    )
  return runs


def _pretext_scores(
  stage: Stage, runs: Sequence[comparison.Run], test: sources.Split
) -> dict[str, dict[str, Any]]:
  """metric → accuracy on real and on blank images, and chance."""
  nothing = sources.blank(test)
  real, empty = [], []
  for run in runs:
    assert run.pretrained is not None
    assert run.pretrain_history is not None
    real.append(run.pretrain_history.last)
    empty.append(stage.evaluate(run.pretrained, nothing))
  chance = metrics.chance(stage.config.tasks, stage.grid_size)
  return {
    metric: {
      "test": comparison.summarise([scores[metric] for scores in real]),
      "blank": comparison.summarise([scores[metric] for scores in empty]),
      "chance": chance[metric],
    }
    for metric in _PRETEXT
  }


def pretext_table(
  pretext: dict[str, dict[str, Any]], grid_size: tuple[int, int]
) -> report.Table:
  """What pre-training learned, beside chance and a blank image."""
  height, width = grid_size
  return report.Table(
    (
      f"pre-training, {height}×{width} patches",
      "test accuracy %",
      "chance",
      "blank images",
    ),
    [
      (
        text,
        f"{pretext[metric]['test']}",
        f"{100 * pretext[metric]['chance']:.1f}",
        f"{pretext[metric]['blank']}",
      )
      for metric, text in _PRETEXT.items()
    ],
  )


def _headline(splits: dict[str, sources.Split], arm: comparison.Arm) -> str:
  return (
    f"Training {_model_text(arm)} on {_data_text(splits)}, on "
    f"{arm.labelled.mesh.size} × {jax.devices()[0].device_kind}."
  )


def _model_text(arm: comparison.Arm) -> str:
  params = jax.eval_shape(lambda: arm.labelled.init(0)).params
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  model = arm.labelled.config.model
  return (
    f"a ViT of {count:,} parameters ({model.embed_dim} wide, {model.depth} "
    f"deep, patch {model.patch_size})"
  )


def _data_text(splits: dict[str, sources.Split]) -> str:
  height, width, _ = splits["train"].images.shape[1:]
  return (
    f"{len(splits['train']):,} scanned digits of {height}×{width} pixels, "
    f"tested on {len(splits['test']):,} others"
  )


def _facts(
  splits: dict[str, sources.Split],
  arm: comparison.Arm,
  num_seeds: int,
  seconds: float,
) -> dict[str, str]:
  # ru_maxrss is in KiB on Linux and in bytes on macOS.
  unit = 1 if platform.system() == "Darwin" else 1024
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
  versions = [f"{name} {metadata.version(name)}" for name in ("jax", "flax")]
  device = f"{arm.labelled.mesh.size} × {jax.devices()[0].device_kind}"
  return {
    "model": _model_text(arm),
    "data": _data_text(splits),
    "accuracy": f"after the last step, mean ± standard deviation over "
    f"{num_seeds} seeds; no run and no step was chosen on test images",
    "learning rates": "chosen on validation images (configs/digits.py)",
    "software": ", ".join([f"Python {platform.python_version()}", *versions]),
    "device": device,
    "time": f"{seconds:.0f} s",
    "memory": f"{peak / 2**20:,.0f} MiB",
    "date": datetime.date.today().isoformat(),
  }


def _write_json(
  path: pathlib.Path,
  arms: Sequence[comparison.Arm],
  runs: Runs,
  pretext: dict[str, dict[str, Any]],
  verdict: str,
  facts: dict[str, str],
) -> None:
  content = {
    "verdict": verdict,
    "arms": [comparison.as_json(arm, runs[arm.name]) for arm in arms],
    "pretext": {
      metric: {
        "test": scores["test"].mean,
        "blank": scores["blank"].mean,
        "chance": scores["chance"],
      }
      for metric, scores in pretext.items()
    },
    "facts": facts,
  }
  path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
