"""A model from a checkpoint alone answers as it did while it was trained."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from relvit_jax import cli
from relvit_jax.data import sources
from relvit_jax.training import trained

pytestmark = pytest.mark.long

SPLITS = sources.digits()


@pytest.fixture(scope="module")
def joint(joint_run):
  return trained.Trained(joint_run)


def test_it_scores_as_the_run_said(joint, joint_run):
  summary = json.loads((joint_run / "summary.json").read_text())
  for part in ("validation", "test"):
    scores = joint.evaluate(SPLITS[part])
    assert scores.keys() == summary["last"][part].keys()
    for metric, value in summary["last"][part].items():
      np.testing.assert_allclose(scores[metric], value, rtol=1e-5)


def test_the_best_may_be_asked_for(joint_run):
  best = trained.Trained(joint_run, "best")
  summary = json.loads((joint_run / "summary.json").read_text())
  step = summary["best"]["step"]
  assert best.where == f"{joint_run / 'checkpoints'}, step {step}"


def test_answers_come_in_the_order_of_the_split(joint):
  answers = joint.answers(SPLITS["test"])
  np.testing.assert_array_equal(answers.features.labels, SPLITS["test"].labels)
  assert answers.features.values.shape == (500, 12)
  batch = SPLITS["test"].take([7, 8])
  scores = np.asarray(joint.outputs(batch)["label"])
  np.testing.assert_array_equal(answers.labels[7:9], scores.argmax(axis=-1))


def test_accuracy_follows_from_the_answers(joint):
  answers = joint.answers(SPLITS["test"])
  share = (answers.labels == answers.features.labels).mean()
  scores = joint.evaluate(SPLITS["test"])
  assert scores["label_top1"] == pytest.approx(share)


def test_without_labels_features_are_the_mean_of_the_patches(pretrain_run):
  model = trained.Trained(pretrain_run)
  answers = model.answers(SPLITS["validation"])
  assert answers.labels is None
  images = model.views.normalise(jnp.asarray(SPLITS["validation"].images[:3]))
  tokens = model.model.backbone(images).patches
  np.testing.assert_allclose(
    answers.features.values[:3], tokens.mean(axis=1), atol=1e-5
  )


def test_which_class_is_taken_for_which():
  counts = trained.confused(
    np.array([0, 1, 1, 0]), np.array([0, 0, 1, -1]), num_classes=2
  )
  assert counts.tolist() == [[1, 1], [0, 1]]


def test_per_class_accuracies():
  shares = trained.per_class(
    np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), ("a", "b", "none")
  )
  assert shares["a"] == 1
  assert shares["b"] == pytest.approx(2 / 3)
  assert np.isnan(shares["none"])


def test_relvit_evaluate_prints_and_keeps_all_of_it(
  joint_run, tmp_path, capsys
):
  path = tmp_path / "scores.json"
  words = ["evaluate", str(joint_run), "--features", "--json", str(path)]
  assert cli.main([*words, "--neighbours=5"]) == 0
  said = capsys.readouterr().out
  kept = json.loads(path.read_text())
  top1 = 100 * kept["metrics"]["label_top1"]
  assert f"label {top1:.1f} %" in said
  assert "chance: label 10.0 %, top 5 50.0 %, relation 14.1 %" in said
  assert set(kept["per_class"]) == set("0123456789")
  assert "on 500 images of digits/test" in said
  knn = 100 * kept["features"]["knn"]
  assert f"kNN {knn:.1f} % (k=5, temperature 0.07)" in said
  # Trained for a moment only: yet its features tell digits apart.
  assert kept["features"]["knn"] > 0.15
  assert kept["features"]["linear"] > 0.15


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["gone"], "no checkpoint in"),
    (["RUN", "--features", "--neighbours=9999"], "neighbours=9999 must be"),
    (["RUN", "--features", "--neighbours=0"], "neighbours=0 must be from 1"),
    (["RUN", "--features", "--temperature=0"], "temperature=0.0 must be more"),
  ],
)
def test_what_cannot_be_evaluated_is_refused(words, message, joint_run, capsys):
  words = [str(joint_run) if word == "RUN" else word for word in words]
  assert cli.main(["evaluate", *words]) == 2
  assert message in capsys.readouterr().err
