"""How long devices wait for a feed: nothing, all, or by the clock between."""

import threading

import pytest

from relvit_jax.training import waiting


class Results:
  """What a device gives when it is told to."""

  def __init__(self):
    self.ready = threading.Event()

  def block_until_ready(self):
    self.ready.wait(10)
    return self


class Bench:
  """A watch, its clock, and a device that works as long as it is told."""

  def __init__(self):
    self.now = 0.0
    self.watch = waiting.Watch(lambda: self.now)
    self.running = None

  def dispatch(self, read, done_after=None, images=100):
    """Reads for so many seconds; what ran before ends after some of them."""
    with self.watch.reading():
      if done_after is not None:
        self.now += done_after
        self.finish()
        read -= done_after
      self.now += read
    before, self.running = self.running, Results()
    waits = self.watch.dispatched(self.running, images)
    if before:
      before.ready.set()
    return waits

  def finish(self):
    self.running.ready.set()
    self.watch._done.result(10)


@pytest.fixture
def bench():
  made = Bench()
  yield made
  made.running.ready.set()
  made.watch.close()


def test_the_first_dispatch_compiles_and_counts_for_nothing(bench):
  assert bench.dispatch(read=50.0) == {}
  assert bench.watch.total == waiting.Waits()
  assert bench.watch.total.share == 0


def test_a_device_that_is_still_at_work_has_not_waited(bench):
  bench.dispatch(read=0.0)
  for _ in range(3):
    assert bench.dispatch(read=2.0) == {"feed_wait_share": 0.0}
    bench.finish()
    bench.now += 1.0  # As a loop that waits for results, and then reads.
    assert bench.dispatch(read=0.0) == {"feed_wait_share": 0.0}
  assert bench.watch.total.waited == 0
  assert bench.watch.total.seconds == 9
  assert bench.watch.total.images == 600


def test_what_is_read_after_the_device_is_done_it_waits_for(bench):
  bench.dispatch(read=0.0)
  waits = [bench.dispatch(read=4.0, done_after=1.0) for _ in range(3)]
  assert waits == [{"feed_wait_share": 0.75}] * 3
  assert bench.watch.total == waiting.Waits(300, 12.0, 9.0)
  assert bench.watch.total.share == 0.75


def test_evaluation_is_neither(bench):
  bench.dispatch(read=0.0)
  bench.now += 3.0
  bench.finish()
  with bench.watch.elsewhere():
    bench.now += 1000.0
  # The device was done before; all of this second it waited.
  assert bench.dispatch(read=1.0) == {"feed_wait_share": 0.25}
  assert bench.watch.total == waiting.Waits(100, 4.0, 1.0)


def test_a_device_that_failed_is_left_to_who_asks_for_its_results(bench):
  class Broken:
    def block_until_ready(self):
      raise RuntimeError("out of memory")

  bench.dispatch(read=0.0)
  bench.finish()
  bench.watch.dispatched(Broken(), 1)
  assert bench.dispatch(read=1.0)["feed_wait_share"] == 0


WAITS = waiting.Waits(images=3_100, seconds=10.0, waited=6.5)


def test_the_limit_in_words():
  assert WAITS.in_words(num_workers=2, cores=8) == (
    "the feed is the limit: it gives 310 images/s where the step could take "
    "886, and the device waits 65 % of the time; data.num_workers=7 may help "
    "(num_workers=2, 8 cores)"
  )
  for workers, cores, mend in (
    (0, 4, "data.num_workers=3 may help"),
    (1, 2, "data.num_workers=0, which is threads on all cores, may help"),
    (8, 8, "only more cores, or smaller images on the disk, will help"),
    (0, 2, "only more cores, or smaller images on the disk, will help"),
    (0, 1, "only more cores, or smaller images on the disk, will help"),
  ):
    assert f"; {mend} (" in WAITS.in_words(workers, cores)


def test_a_feed_that_keeps_up_is_not_blamed():
  assert waiting.Waits(3_100, 10.0, 0.9).in_words(0, 2) is None
  assert waiting.Waits().in_words(0, 2) is None
