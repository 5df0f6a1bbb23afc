"""The page of `relvit quickstart`: its pictures and what it says of them."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from relvit_jax.analysis import comparison, figures, report, similarity
from relvit_jax.data import sources
from relvit_jax.training import metrics
from relvit_jax.training.stage import Stage


def write(
  workdir: pathlib.Path,
  arms: Sequence[comparison.Arm],
  runs: Mapping[str, Sequence[comparison.Run]],
  test: sources.Split,
  tables: tuple[report.Table, report.Table],
  verdict: str,
  facts: Mapping[str, str],
) -> None:
  """Writes index.html and the PNG files it shows.

  Args:
    workdir: an existing folder.
    arms: supervised, RelViT, supervised for as long as RelViT.
    runs: by the name of the arm.
    test: the split whose images are shown.
    tables: of the arms and of what pre-training learns.
    verdict: what came out, in a sentence.
    facts: how it was made.
  """
  _, relvit, _ = arms
  assert relvit.pretrain
  pictures = {
    "curves": _curves(arms, runs),
    "relations": _relations(relvit.pretrain, runs[relvit.name][0], test),
    "positions": _positions(arms, runs),
  }
  for name, figure in pictures.items():
    figure.savefig(workdir / f"{name}.png", dpi=150)
  report.write_page(
    workdir / "index.html",
    title="RelViT quick start: do patches that know their place help?",
    subtitle="A small vision transformer on scikit-learn's digits, three ways.",
    verdict=verdict,
    sections=_sections(*tables),
    facts=facts,
  )


def _sections(
  arms: report.Table, pretext: report.Table
) -> Sequence[report.Section]:
  return (
    report.Section(
      "Three ways to spend training steps",
      "The first two rows are the paper's comparison: the same number of "
      "labelled steps, with and without pre-training on the same images "
      "without their labels. The third is the control that the paper lacks: "
      "the steps of both RelViT stages, all of them with labels. The gain "
      "is paired by seed.",
      table=arms,
    ),
    report.Section(
      "What pre-training learns",
      "Without positional embeddings the model has to find out from the "
      "pixels where each patch sits. Chance is the best answer that looks "
      "at nothing; a model that answers better than that on blank images "
      "does not look.",
      table=pretext,
    ),
    report.Section(
      "Curves",
      image="curves.png",
      caption="Mean over seeds, with the range from the lowest to the "
      "highest as a band.",
    ),
    report.Section(
      "Where the patches sit, according to the model",
      image="relations.png",
      caption="Each arrow says where that patch lies, seen from the framed "
      "one; orange is wrong. Empty patches of one image look alike: nobody "
      "could tell them apart by their pixels alone.",
    ),
    report.Section(
      "What the positional embeddings have learned",
      image="positions.png",
      caption="Cosine similarity of the embedding of each place to that of "
      "every other, one small map a place, from -1 to 1; first seed. The "
      "embeddings of RelViT are learned while fine-tuning, as pre-training "
      "has none.",
    ),
  )


def _curves(
  arms: Sequence[comparison.Arm], runs: Mapping[str, Sequence[comparison.Run]]
) -> Figure:
  def curve(histories: Sequence[Any], kind: str, metric: str) -> figures.Curve:
    tracks = [getattr(history, kind) for history in histories]
    steps = sorted(tracks[0])
    return steps, np.array(
      [[track[s][metric] for s in steps] for track in tracks]
    )

  labelled = {arm.name: [run.history for run in runs[arm.name]] for arm in arms}
  relvit = arms[1]
  assert relvit.pretrain
  pretrain = [run.pretrain_history for run in runs[relvit.name]]
  chance = metrics.chance(
    relvit.pretrain.config.tasks, relvit.pretrain.grid_size
  )
  pretext = {
    "relation": "relation_accuracy",
    "position": "position_accuracy",
  }
  return figures.curves(
    [
      {
        "title": "label loss while training",
        "ylabel": "cross entropy",
        "curves": {
          name: curve(histories, "train", "loss_label")
          for name, histories in labelled.items()
        },
      },
      {
        "title": "label accuracy on test images",
        "ylabel": "%",
        "percent": True,
        "curves": {
          name: curve(histories, "evaluation", "label_top1")
          for name, histories in labelled.items()
        },
      },
      {
        "title": "pre-training loss",
        "ylabel": "cross entropy",
        "curves": {
          name: curve(pretrain, "train", f"loss_{name}") for name in pretext
        },
      },
      {
        "title": "pre-training accuracy on test images (dotted: chance)",
        "ylabel": "%",
        "percent": True,
        "curves": {
          name: curve(pretrain, "evaluation", metric)
          for name, metric in pretext.items()
        },
        "chance": {name: chance[metric] for name, metric in pretext.items()},
      },
    ]
  )


def _relations(
  stage: Stage, run: comparison.Run, test: sources.Split
) -> Figure:
  """One test image of each of six classes, seen from its busiest patch."""
  assert run.pretrained is not None
  first = [int(np.flatnonzero(test.labels == label)[0]) for label in range(6)]
  images = test.images[first]
  scores = stage.model(run.pretrained)(
    stage.views.normalise(jnp.asarray(images))
  )
  return figures.relations(
    images,
    np.asarray(scores["relation"]),
    stage.grid_size,
    figures.busiest(images, stage.grid_size),
  )


def _positions(
  arms: Sequence[comparison.Arm], runs: Mapping[str, Sequence[comparison.Run]]
) -> Figure:
  return figures.position_similarities(
    {
      f"{arm.name}\n({arm.labelled_steps:,} labelled steps)": (
        similarity.position_similarity(
          np.asarray(
            runs[arm.name][0].labelled.params["backbone"]["pos_embed"]
          ),
          arm.labelled.grid_size,
        )
      )
      for arm in arms
    }
  )
