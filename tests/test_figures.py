"""Pictures show the numbers they are given."""

import numpy as np

from relvit_jax import grid
from relvit_jax.analysis import figures


def texts(axes):
  return "".join(text.get_text() for text in axes.texts)


def test_curves_are_means_with_the_range_as_a_band():
  steps, values = [10, 20], np.array([[0.1, 0.3], [0.3, 0.5]])
  figure = figures.curves(
    [
      {
        "title": "accuracy",
        "ylabel": "%",
        "percent": True,
        "curves": {"a": (steps, values)},
        "chance": {"a": 0.1},
      }
    ]
  )
  (axes,) = figure.axes
  mean, chance = axes.lines
  np.testing.assert_allclose(np.asarray(mean.get_ydata()), [20, 40])
  np.testing.assert_allclose(np.asarray(chance.get_ydata()), [10, 10])
  (band,) = axes.collections
  extents = band.get_datalim(axes.transData)
  np.testing.assert_allclose((extents.ymin, extents.ymax), (10, 50))


def test_arrows_point_to_where_the_patches_sit():
  truth = grid.relations(2, 2)
  scores = np.eye(9)[truth].transpose(2, 0, 1)[None]  # All right …
  scores[0, :, 3, 0] = np.eye(9)[1]  # … but one: "up".
  figure = figures.relations(
    np.zeros((1, 4, 4, 3), np.uint8), scores, (2, 2), np.array([0])
  )
  _, right, model = figure.axes
  # Seen from the first patch: itself, right, down, down and right.
  assert texts(right) == "•→↓↘"
  assert texts(model) == "•→↓↑"
  assert model.get_xlabel() == "2 of 3 right"
  colours = [text.get_color() for text in model.texts]
  assert len(set(colours[:3])) == 1
  assert colours[3] != colours[0]


def test_the_busiest_patch_is_the_one_with_most_contrast():
  image = np.zeros((1, 4, 4, 3), np.uint8)
  image[0, 2, 1] = 255  # In the lower left patch of 2×2.
  assert figures.busiest(image, (2, 2)).tolist() == [2]


def test_similarity_maps_lie_where_their_place_is():
  similarity = np.linspace(-1, 1, 36).reshape(2, 3, 2, 3)
  figure = figures.position_similarities({"one": similarity, "two": similarity})
  maps = [axes for axes in figure.axes if axes.images]
  assert len(maps) == 2 * 6
  np.testing.assert_array_equal(maps[4].images[0].get_array(), similarity[1, 1])
  assert maps[4].images[0].get_clim() == (-1, 1)
