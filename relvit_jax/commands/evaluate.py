"""relvit evaluate: scores of a checkpoint, with its frozen features beside."""

from __future__ import annotations

import argparse
import json
import pathlib
from typing import Any

from relvit_jax.commands import CommandError, keep_compiled


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "checkpoint", help="a work directory, or a checkpoint in it"
  )
  parser.add_argument(
    "--which",
    choices=("last", "best"),
    help="which checkpoint of a work directory (last)",
  )
  parser.add_argument(
    "--split",
    choices=("train", "validation", "test"),
    default="test",
    help="of the data set it was trained on (%(default)s)",
  )
  parser.add_argument(
    "--features",
    action="store_true",
    help="also classify by frozen features: kNN and a linear probe, both "
    "fitted on the training split",
  )
  parser.add_argument(
    "--neighbours",
    type=int,
    default=20,
    help="of the kNN (%(default)s, as in DINO)",
  )
  parser.add_argument(
    "--temperature",
    type=float,
    default=0.07,
    help="of the kNN's votes (%(default)s, as in DINO)",
  )
  parser.add_argument(
    "--json", type=pathlib.Path, help="file for all that was measured"
  )


def main(arguments: argparse.Namespace) -> None:
  """Evaluates, prints, and writes the JSON file if there is to be one.

  Raises:
    CommandError: the checkpoint or its data set cannot be used.
  """
  keep_compiled()
  from relvit_jax.training import datasets
  from relvit_jax.training.trained import Trained

  parts = dict.fromkeys(
    ["train", arguments.split] if arguments.features else [arguments.split]
  )
  try:
    trained = Trained(arguments.checkpoint, arguments.which)
    splits = datasets.load(trained.config, tuple(parts)).splits
  except (ValueError, FileNotFoundError) as error:
    raise CommandError(str(error)) from error
  split = splits[arguments.split]
  print(f"{trained.where}, on {len(split):,} images of {split.name}")
  result = _scores(trained, split)
  if arguments.features:
    result["features"] = _features(trained, splits["train"], split, arguments)
  if arguments.json:
    result |= {"checkpoint": trained.where, "split": split.name}
    text = json.dumps(result, indent=2) + "\n"
    arguments.json.write_text(text, encoding="utf-8")
    print(f"all of it: {arguments.json}")


def _scores(trained: Any, split: Any) -> dict[str, Any]:
  from relvit_jax.training import metrics, progress
  from relvit_jax.training.trained import per_class

  means = trained.evaluate(split)
  classes = len(trained.class_names)
  chance = metrics.chance(
    trained.config.tasks,
    trained.model.grid_size,
    classes or None,
    trained.localisation,
  )
  print(progress.in_words(means))
  print(f"chance: {progress.in_words(chance)}")
  result: dict[str, Any] = {"metrics": means, "chance": chance}
  found = trained.answers(split)
  if found.labels is not None:
    shares = per_class(found.labels, found.features.labels, trained.class_names)
    result["per_class"] = shares
    print(_classes_in_words(shares))
  return result


def _classes_in_words(shares: dict[str, float]) -> str:
  """All classes, or of many the worst and the best."""
  ranked = sorted(shares, key=lambda name: -shares[name])
  shown = ranked if len(ranked) <= 20 else [*ranked[:5], "…", *ranked[-5:]]
  width = max(map(len, shown))
  return "\n".join(
    f"  {name:{width}}  {100 * shares[name]:5.1f} %" if name in shares else name
    for name in shown
  )


def _features(
  trained: Any, train: Any, split: Any, arguments: argparse.Namespace
) -> dict[str, Any]:
  from relvit_jax.training import probe

  neighbours, temperature = arguments.neighbours, arguments.temperature
  if not trained.class_names:
    raise CommandError(
      f"--features classifies by labels, and {train.name} has none"
    )
  known = trained.answers(train).features
  asked = trained.answers(split).features
  try:
    nearest = probe.knn_accuracy(
      known, asked, len(trained.class_names), neighbours, temperature
    )
  except ValueError as error:
    raise CommandError(str(error)) from error
  linear = probe.linear_accuracy(known, asked)
  print(
    f"frozen features, {known.values.shape[1]} numbers: "
    f"kNN {100 * nearest:.1f} % (k={neighbours}, temperature {temperature}), "
    f"linear probe {100 * linear:.1f} % (logistic regression, C=1)"
  )
  return {
    "knn": nearest,
    "neighbours": neighbours,
    "temperature": temperature,
    "linear": linear,
  }
