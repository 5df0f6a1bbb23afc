"""Pictures of what a model says are those of its answers."""

import numpy as np
import pytest

from relvit_jax.analysis import gallery
from relvit_jax.data import sources
from relvit_jax.training.trained import Trained

pytestmark = pytest.mark.long

TEST = sources.digits()["test"]


@pytest.fixture(scope="module")
def joint(joint_run):
  return Trained(joint_run)


@pytest.fixture(scope="module")
def pretrained(pretrain_run):
  return Trained(pretrain_run)


def test_predictions_are_of_every_class_with_what_the_model_said(joint):
  figure = gallery.predictions(joint, TEST, count=10)
  said = joint.answers(TEST).labels
  chosen = gallery._chosen(TEST, 10)
  assert TEST.labels[chosen].tolist() == list(range(10))
  for axes, index in zip(figure.axes, chosen, strict=True):
    assert axes.get_title().startswith(f"{said[index]}, ")
    shown = np.asarray(axes.images[0].get_array())
    np.testing.assert_array_equal(shown, TEST.images[index])


def test_confusion_counts_every_image(joint):
  figure = gallery.confusion(joint, TEST)
  shares = np.asarray(figure.axes[0].images[0].get_array())
  np.testing.assert_allclose(shares.sum(axis=1), 100)
  answers = joint.answers(TEST)
  right = (answers.labels == answers.features.labels).mean()
  of_class = np.bincount(TEST.labels) / len(TEST)
  assert (np.diag(shares) * of_class).sum() == pytest.approx(100 * right)


def test_relations_have_a_column_an_image(pretrained):
  figure = gallery.relations(pretrained, TEST, count=3)
  assert len(figure.axes) == 3 * 3
  assert "of 15 right" in figure.axes[-1].get_xlabel()


def test_what_a_model_did_not_learn_is_refused(pretrained, joint_run):
  with pytest.raises(ValueError, match="learned no labels"):
    gallery.predictions(pretrained, TEST)
  with pytest.raises(ValueError, match="learned no labels"):
    gallery.confusion(pretrained, TEST)
