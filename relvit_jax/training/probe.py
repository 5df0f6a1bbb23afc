"""How much frozen features know of the classes: nearest neighbours, a line."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# As in DINO's evaluation (Caron et al., 2021).
NEIGHBOURS = 20
TEMPERATURE = 0.07

_QUERIES = 512  # Compared with all training images at a time.


class Features(NamedTuple):
  """Of the images of a split, with their labels.

  Attributes:
    values: float32.
    labels: index into the classes.
  """

  values: Float[np.ndarray, "n F"]
  labels: Int[np.ndarray, " n"]


def knn_accuracy(
  train: Features,
  test: Features,
  num_classes: int,
  neighbours: int = NEIGHBOURS,
  temperature: float = TEMPERATURE,
) -> float:
  """Share of `test` that its nearest neighbours in `train` classify.

  Neighbours are the nearest by cosine; each votes for its class with the
  weight exp(cosine / temperature).

  Args:
    train: whose labels are known.
    test: to be classified.
    num_classes: of the labels.
    neighbours: how many vote; at most as many as there are.
    temperature: how much more the nearer ones count.

  Raises:
    ValueError: neighbours or temperature is out of range.
  """
  if not 1 <= neighbours <= len(train.values):
    raise ValueError(
      f"neighbours={neighbours} must be from 1 to the {len(train.values)} "
      "training images"
    )
  if temperature <= 0:
    raise ValueError(f"temperature={temperature} must be more than 0")
  known = _unit(jnp.asarray(train.values))
  classes = jnp.asarray(train.labels)
  right = 0
  for start in range(0, len(test.values), _QUERIES):
    asked = _unit(jnp.asarray(test.values[start : start + _QUERIES]))
    votes = _votes(asked, known, classes, num_classes, neighbours, temperature)
    chosen = np.asarray(jnp.argmax(votes, axis=-1))
    right += int((chosen == test.labels[start : start + _QUERIES]).sum())
  return right / len(test.values)


def linear_accuracy(
  train: Features, test: Features, inverse_decay: float = 1.0
) -> float:
  """Share of `test` that a logistic regression on `train` classifies.

  On features of mean 0 and standard deviation 1 over `train`.

  Args:
    train: to fit.
    test: to be classified.
    inverse_decay: scikit-learn's C.
  """
  from sklearn import linear_model, pipeline, preprocessing

  classifier = pipeline.make_pipeline(
    preprocessing.StandardScaler(),
    linear_model.LogisticRegression(C=inverse_decay, max_iter=1_000),
  )
  classifier.fit(train.values, train.labels)
  return float(classifier.score(test.values, test.labels))


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _votes(
  asked: Float[Array, "q F"],
  known: Float[Array, "n F"],
  classes: Int[Array, " n"],
  num_classes: int,
  neighbours: int,
  temperature: float,
) -> Float[Array, "q C"]:
  cosines = jnp.matmul(asked, known.T, precision=jax.lax.Precision.HIGHEST)
  nearest, places = jax.lax.top_k(cosines, neighbours)
  # The same factor for all votes of an image keeps them from overflowing.
  weights = jnp.exp((nearest - nearest[:, :1]) / temperature)
  theirs = jax.nn.one_hot(classes[places], num_classes)
  return jnp.einsum("qk,qkc->qc", weights, theirs)


def _unit(features: Float[Array, "n F"]) -> Float[Array, "n F"]:
  lengths = jnp.linalg.norm(features, axis=-1, keepdims=True)
  return features / jnp.maximum(lengths, 1e-12)
