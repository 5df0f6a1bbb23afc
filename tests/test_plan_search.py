"""Which batches fit, on chips whose memory grows with the batch."""

from typing import ClassVar

import pytest

from relvit_jax import config
from relvit_jax.analysis import ahead, chips, plan_search

WHERE = chips.parse("v5e:2x2")
AVAILABLE = 15.75 * 2**30


class Linear:
  """So many bytes, and of each image of a chip so many more."""

  fixed, each = 100 * 2**20, 2**20
  tried: ClassVar[list] = []

  def __init__(self, settings, where, devices):
    if settings.batch_size % where.size:
      raise ValueError(f"batch_size={settings.batch_size} must be a multiple")
    self.batch, self.fsdp = settings.batch_size, settings.mesh.fsdp

  def report(self):
    Linear.tried.append((self.batch, self.fsdp))
    needed = self.fixed + self.each * self.batch / 4
    if needed > AVAILABLE:
      raise ahead.TooLargeError(needed, AVAILABLE)
    # The larger the batch, the less of a step is overhead.
    return {"seconds": {"step": 1 + self.batch * self.fsdp / 1000}}


@pytest.fixture(autouse=True)
def linear(monkeypatch):
  monkeypatch.setattr(plan_search, "Planned", Linear)
  monkeypatch.setattr(Linear, "tried", [])


def settings(**keys):
  made = config.load("cifar10:pretrain")
  made.update(keys)
  return made


def largest(batch_size, needed):
  refused = ahead.TooLargeError(needed, AVAILABLE)
  return plan_search.largest_batch(
    settings(batch_size=batch_size), WHERE, [], refused
  )


def test_the_largest_batch_that_fits_is_found_at_once():
  """(15.75 GiB - 100 MiB) / 1 MiB images a chip are 16,028: 64,112 in all."""
  found = largest(100_000, 100 * 2**20 + 25_000 * 2**20)
  assert 0.9 * 64_112 < found <= 64_112
  assert found % 4 == 0
  assert len(Linear.tried) == 1


def test_a_guess_that_does_not_fit_is_made_smaller():
  # The compiler gave up before it had counted all.
  found = largest(100_000, 1.01 * AVAILABLE)
  assert 0.85 * 64_112 < found <= 64_112
  assert 1 < len(Linear.tried) <= 4


def test_what_does_not_grow_with_the_batch_is_reckoned_with(monkeypatch):
  """12 GiB, and 3.75 GiB for images of 3.2 MiB: 4,800 of four chips."""
  monkeypatch.setattr(Linear, "fixed", 12 * 2**30)
  monkeypatch.setattr(Linear, "each", 3.2 * 2**20)
  found = largest(100_000, 12 * 2**30 + 25_000 * 3.2 * 2**20)
  assert 0.85 * 4_800 < found <= 4_800


def test_where_one_image_is_too_much_none_fits(monkeypatch):
  monkeypatch.setattr(Linear, "each", 16 * 2**30)
  assert largest(8, 32 * 2**30) is None
  # The least that there is was tried.
  assert Linear.tried[-1] == (4, 1)


def test_a_batch_that_is_mixed_in_pairs_stays_even():
  mixing = config.load("cifar10:joint,strong", ["batch_size=200000"])
  where = chips.parse("v5e:1x1")
  refused = ahead.TooLargeError(2.1 * AVAILABLE, AVAILABLE)
  found = plan_search.largest_batch(mixing, where, [], refused)
  assert found % 2 == 0


def test_a_sweep_has_every_batch_and_mesh():
  rows = list(
    plan_search.sweep(settings(), WHERE, [], [256, 6, 100_000, 200_000], [1, 2])
  )
  assert [
    (row["batch_size"], row["fsdp"], row.get("refused", "fits")) for row in rows
  ] == [
    (6, 1, "batch_size=6 must be a multiple"),
    (256, 1, "fits"),
    (100_000, 1, "a chip would need 24.5 GiB, and has 15.75"),
    (200_000, 1, "more than what does not fit"),
    (6, 2, "batch_size=6 must be a multiple"),
    (256, 2, "fits"),
    (100_000, 2, "a chip would need 24.5 GiB, and has 15.75"),
    (200_000, 2, "more than what does not fit"),
  ]
  # What cannot fit is not compiled.
  assert Linear.tried == [(256, 1), (100_000, 1), (256, 2), (100_000, 2)]


def test_the_fastest_has_the_most_images_a_second():
  rows = list(plan_search.sweep(settings(), WHERE, [], [256, 4096], [1, 2]))
  best = plan_search.fastest(rows)
  assert (best["batch_size"], best["fsdp"]) == (4096, 1)
  assert plan_search.fastest([{"refused": "no"}]) is None


def test_a_config_is_not_changed_by_looking_elsewhere():
  before = settings()
  list(plan_search.sweep(before, WHERE, [], [512], [2]))
  assert (before.batch_size, before.mesh.fsdp) == (256, 1)


def test_a_data_set_that_cannot_be_planned_with_ends_a_sweep_at_once():
  made = settings()
  made.data.splits.train = "nope"
  with pytest.raises(ValueError, match=r"splits.train='nope' is no split"):
    list(plan_search.sweep(made, WHERE, [], [256], [1]))
  assert Linear.tried == []
