"""Pictures of classes show the numbers they are given."""

import numpy as np

from relvit_jax.analysis import class_figures


def test_wrong_answers_are_in_another_colour_with_the_truth():
  figure = class_figures.predictions(
    np.zeros((3, 4, 4, 3), np.uint8),
    ["cat", "cat", "cat"],
    np.array([0.9, 0.62, 0.5]),
    ["cat", "dog", ""],
  )
  right, wrong, unknown = (axes.title for axes in figure.axes)
  assert right.get_text() == "cat, 90 %"
  assert wrong.get_text() == "cat, 62 %\nit is dog"
  assert unknown.get_text() == "cat, 50 %"
  assert right.get_color() == unknown.get_color() != wrong.get_color()


def test_confusion_is_in_per_cent_of_the_true_class():
  counts = np.array([[3, 1], [0, 0]])
  figure = class_figures.confusion(counts, ["cat", "dog"])
  axes = figure.axes[0]
  np.testing.assert_array_equal(axes.images[0].get_array(), [[75, 25], [0, 0]])
  assert [text.get_text() for text in axes.texts] == ["75", "25"]
  names = [label.get_text() for label in axes.get_yticklabels()]
  assert names == ["cat", "dog"]


def test_of_very_many_classes_no_name_is_written():
  counts = np.eye(60, dtype=int)
  figure = class_figures.confusion(counts, [f"class {i}" for i in range(60)])
  assert not figure.axes[0].texts


def test_long_names_are_cut():
  (axes,) = class_figures.predictions(
    np.zeros((1, 4, 4, 3), np.uint8),
    ["a name that has no end"],
    np.array([1.0]),
    [""],
  ).axes
  assert axes.get_title() == "a name that h…, 100 %"
