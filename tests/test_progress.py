"""How a run is going: a bar on a terminal, lines in a file."""

import io

from relvit_jax.training import progress

MEANS = {"loss_total": 1.23456, "label_top1": 0.4512, "gradient_norm": 3.0}


class Terminal(io.StringIO):
  def isatty(self):
    return True


def test_metrics_in_words():
  assert progress.in_words(MEANS) == "loss 1.235, label 45.1 %"
  assert (
    progress.in_words(
      {"relation_accuracy": 0.5, "position_accuracy": 1, "distance_error": 0.25}
    )
    == "relation 50.0 %, position 100.0 %, distance 0.250 patches off"
  )
  assert progress.in_words({"drloc_error": 1.5}) == "drloc 1.500 patches off"


def test_on_a_terminal_there_is_a_bar_with_rate_and_time_left():
  stream = Terminal()
  with progress.Progress(100, 0, batch_size=32, stream=stream) as shown:
    shown.advance(50, MEANS)
    shown.evaluated(50, "validation", MEANS)
    shown.advance(100, MEANS)
  text = stream.getvalue()
  assert "step 50, validation: loss 1.235, label 45.1 %" in text
  assert "100%" in text
  assert "3.20k/3.20k" in text
  assert "images/s, loss 1.235" in text


def test_in_a_file_there_are_lines_now_and_then(monkeypatch):
  seconds = iter([0.0, 10.0, 40.0, 40.0, 40.0, 50.0])
  monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
  stream = io.StringIO()
  with progress.Progress(100, 20, batch_size=32, stream=stream) as shown:
    shown.advance(40, MEANS)  # After 10 s: too soon for a line.
    shown.advance(60, MEANS)  # After 40 s.
    shown.advance(80, MEANS)  # 10 s after that line.
  # 40 steps in 40 s, 40 more to go.
  assert stream.getvalue() == (
    "step 60 of 100, 32 images/s, 00:40 left: loss 1.235, label 45.1 %\n"
  )


def test_a_run_that_goes_on_counts_from_where_it_was():
  stream = Terminal()
  with progress.Progress(100, 60, batch_size=1, stream=stream) as shown:
    shown.advance(80, MEANS)
  assert "80.0/100" in stream.getvalue()


def test_what_limits_a_run_is_said_once_and_not_at_once():
  stream = io.StringIO()
  with progress.Progress(100, 0, batch_size=1, stream=stream) as shown:
    shown.limited(19.0, "too early")
    shown.limited(25.0, None)
    shown.limited(30.0, "the feed is the limit")
    shown.limited(60.0, "still")
  assert stream.getvalue() == "the feed is the limit\n"
