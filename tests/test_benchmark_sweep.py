"""What is varied, and how its cost is drawn."""

import jax
import pytest
from matplotlib.colors import to_rgba

from relvit_jax import config
from relvit_jax.analysis import benchmark, benchmark_sweep, part, parts
from relvit_jax.training import partitioning

POINTS = {
  "batch": [
    (64, {"batch_size": 64}),
    (128, {"batch_size": 128}),
    (256, {"batch_size": 256}),
    (512, {"batch_size": 512}),
  ],
  "patches": [
    (4, {"model.patch_size": 16}),
    (16, {"model.patch_size": 8}),
    (64, {"model.patch_size": 4}),
    (256, {"model.patch_size": 2}),
  ],
  "depth": [
    (3, {"model.depth": 3}),
    (6, {"model.depth": 6}),
    (12, {"model.depth": 12}),
    (24, {"model.depth": 24}),
  ],
}


@pytest.mark.parametrize("what", POINTS)
def test_points_of_vit_small_on_cifar(what):
  settings = config.load("cifar10:pretrain")
  assert list(benchmark_sweep.points(settings, what)) == POINTS[what]


def test_measured_points(monkeypatch):
  """A step takes a millisecond a patch, and 3×3 patches leave a remainder."""

  class Maker:
    def __init__(self, stage):
      self.patches = stage.grid_size[0] * stage.grid_size[1]

    def make(self, name):
      assert name == "step"
      return Pretended(str(self.patches), 1e-3 * self.patches)

  monkeypatch.setattr(parts, "Parts", Maker)
  settings = config.load("digits:pretrain", ["batch_size=4"])
  sweep = benchmark_sweep.measure(
    settings,
    benchmark.synthetic(settings),
    partitioning.make_mesh(devices=jax.devices()[:1]),
    ((0.5,) * 3, (0.25,) * 3),
    {"products": {"float32": {"rate": 1e9}}, "copies": {"bandwidth": 1e8}},
    "patches",
    1.0,
  )
  assert [point["value"] for point in sweep["points"]] == [4, 16, 64]
  for point in sweep["points"]:
    assert point["seconds_per_image"]["median"] == pytest.approx(
      1e-3 * point["value"] / 4
    )
    assert point["planned_bytes"] == 10**6
  bounds = [point["bound_seconds_per_image"] for point in sweep["points"]]
  assert 0 < bounds[0] < bounds[1] < bounds[2]
  (left_out,) = sweep["left_out"]
  assert left_out.startswith("patches an image 1: data.image_size=8 is one")


class Pretended(part.Part):
  """Takes so many seconds a step."""

  def __new__(cls, name, seconds):
    made = super().__new__(cls, name, lambda count: None, 100)
    made.seconds = seconds
    return made

  def _replace(self, **keys):
    return Pretended(keys["name"], self.seconds)

  def clock(self, count):
    return lambda: self.seconds * count

  @property
  def planned_bytes(self):
    return 10**6


def swept(values):
  times = {"lower_quartile": 9e-4, "median": 1e-3, "upper_quartile": 2e-3}
  return {
    "points": [
      {
        "value": value,
        "seconds_per_image": times,
        "bound_seconds_per_image": 5e-4,
        "planned_bytes": 2_000_000,
      }
      for value in values
    ],
    "left_out": [],
  }


def test_the_figure_has_what_was_measured():
  figure = benchmark_sweep.figure(
    {"batch": swept([32, 64]), "depth": swept([3, 12]), "patches": swept([])}
  )
  axes = figure.axes
  assert len(axes) == 4
  assert [one.get_xlabel() for one in axes[2:]] == ["images a step", "blocks"]
  for one in axes:
    assert (one.get_xscale(), one.get_yscale()) == ("log", "log")
  above = axes[0]
  assert [label.get_text() for label in axes[2].get_xticklabels()] == [
    "32",
    "64",
  ]
  measured, *_ = above.get_lines()
  assert measured.get_ydata().tolist() == [1000, 1000]
  bars = above.collections[0].get_segments()
  assert [bar[:, 1].round(6).tolist() for bar in bars] == [[900, 2000]] * 2
  assert {text.get_text(): text.get_color() for text in above.texts} == {
    "measured": benchmark_sweep.figures.COLOURS[0],
    "bound": benchmark_sweep.figures.COLOURS[1],
  }
  assert to_rgba(measured.get_color()) == to_rgba(above.texts[0].get_color())


def test_nothing_measured_is_no_figure():
  with pytest.raises(ValueError, match="nothing to draw"):
    benchmark_sweep.figure({"batch": swept([])})


def test_points_as_text():
  sweep = swept([32]) | {"left_out": ["images a step 1: too few"]}
  assert "\n".join(benchmark_sweep.lines({"batch": sweep})) == (
    "     images a step    µs/image     bound   plan/MB\n"
    "                32       1,000       500         2\n"
    "left out: images a step 1: too few\n"
  )
