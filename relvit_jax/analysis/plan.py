"""What training of a config asks of TPUs that are not there.

The dispatch that training runs is compiled for them; what it moves and says is
read from the program, what it multiplies follows from the model's formula. The
least time for a step is the largest of three: for its products, for its traffic
to main memory, for what the chips tell each other, each at the chip's published
rate. A real step takes longer: how much is not predicted here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import jax

from relvit_jax.analysis import (
  ahead,
  chips,
  hlo_collectives,
  hlo_loops,
  hlo_text,
  hlo_traffic,
  machine,
)
from relvit_jax.analysis.needs import Needs
from relvit_jax.data import feed as feeds
from relvit_jax.training import datasets, partitioning
from relvit_jax.training import stage as stages

# Nothing but values follows from the colours, which training may measure.
_COLOURS = ((0.5,) * 3, (0.25,) * 3)

# How much of each part of a dispatch is a step's.
_Shares = dict[Literal["step", "dispatch"], float]


class Planned:
  """A config on a slice, ready to be compiled.

  Attributes:
    stage: as training would make it, on the chips.
    feed: which feed was chosen and why, in a line.
  """

  def __init__(self, config: Any, where: chips.Slice, devices: Iterable[Any]):
    """Of the chips that `ahead.devices` gives.

    Raises:
      ValueError: the chips cannot share the batches, or the mesh does not fit
        them or the model; says what would do.
    """
    mesh = partitioning.make_mesh(config.mesh.fsdp, list(devices))
    splits, self.feed = datasets.outline(config, where.chip.memory)
    self._where = where
    self.stage = stages.Stage(config, splits["train"], mesh, _COLOURS)
    self._images = len(splits["train"])

  def report(self) -> dict[str, Any]:
    """Compiles, and says what a chip does; see the README for an example.

    Returns:
      What JSON can keep: bytes, operations and seconds, of one chip and one
      step unless it says otherwise.

    Raises:
      ahead.TooLargeError: it needs more memory than a chip has.
    """
    began = time.perf_counter()
    program = ahead.compile_dispatch(self.stage)
    took = time.perf_counter() - began
    stage, chip, size = self.stage, self._where.chip, self._where.size
    held = memory(stage, program.memory_analysis())
    if held["peak"] > chip.memory:
      # Of the second block of a stream the compiler does not know.
      raise ahead.TooLargeError(held["peak"], chip.memory)
    text = program.as_text()
    found = hlo_collectives.collectives(text)
    steps = stage.block_end(0)
    flops = Needs(stage).flops("step") / size
    # And of what a dispatch does once, a step's share.
    shares: _Shares = {"step": 1.0, "dispatch": 1 / steps}
    moved = _bytes_of(hlo_traffic.main_memory_bytes, text, shares)
    sent = sum(
      one.times * one.sent(size) * shares["step" if one.in_step else "dispatch"]
      for one in found
    )
    seconds = {
      "products": flops / chip.flops,
      "memory": moved / chip.bandwidth,
      "exchange": sent / self._where.links if sent else 0.0,
    }
    least = max(seconds.values())
    return {
      "topology": self._where.name,
      "chips": size,
      "hosts": self._where.hosts,
      "chip": chip._asdict() | {"host": list(chip.host)},
      "mesh": dict(stage.mesh.shape),
      "batch_size": stage.config.batch_size,
      "feed": self.feed,
      "is_resident": isinstance(stage.feed, feeds.Resident),
      "steps_per_dispatch": steps,
      "memory": held,
      "parameters": sum(
        leaf.size for leaf in jax.tree.leaves(stage.state_shapes.params)
      ),
      "flops": flops,
      "main_memory_bytes": moved,
      "kernel_bytes": _bytes_of(hlo_traffic.kernel_bytes, text, shares),
      "sent_bytes": sent,
      "links": self._where.links,
      "unknown_loops": hlo_loops.Runs(hlo_text.parse(text)).unknown,
      "collectives": [
        one._asdict() | {"names": list(one.names)} for one in found
      ],
      "seconds": seconds | {"step": least},
      "bound": max(seconds, key=lambda name: seconds[name]),
      "compiler": compiler_says(program.cost_analysis(), least),
      "images": self._images,
      "steps": {"epoch": self._epoch(), "run": stage.num_steps},
      "compile_seconds": took,
      "versions": machine.versions("libtpu"),
    }

  def _epoch(self) -> int:
    return -(-self._images // self.stage.config.batch_size)


def _bytes_of(
  count: Callable[..., Mapping[str, int]], text: str, shares: _Shares
) -> float:
  """What a program reads and writes, by one of the counts of traffic."""
  return sum(
    share * sum(count(text, part).values()) for part, share in shares.items()
  )


def memory(stage: stages.Stage, analysis: Any) -> dict[str, int]:
  """Bytes of a chip, by what they hold.

  "data" has of a streaming feed two blocks, as the next one is there before
  the last is done; "padding" is what arrays take more than their numbers do;
  "activations" all that a dispatch makes and throws away in main memory, the
  gradients too; "peak" all together.
  """
  state = stage.state_shapes
  block = _bytes(stage.feed.outline())
  ahead_of_it = 0 if isinstance(stage.feed, feeds.Resident) else block
  held = {
    "parameters": _bytes(state.params),
    "optimizer": _bytes(state.opt_state),
    "average": _bytes(state.average),
    "fixed": _bytes(state.fixed),
    "data": block + ahead_of_it,
  }
  given = analysis.argument_size_in_bytes + ahead_of_it
  made = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
  return held | {
    "padding": max(0, given - sum(held.values())),
    "activations": analysis.temp_size_in_bytes + made,
    "code": analysis.generated_code_size_in_bytes,
    "peak": given
    + made
    + analysis.temp_size_in_bytes
    + analysis.generated_code_size_in_bytes,
  }


def _bytes(tree: Any) -> int:
  """Of the part of arrays that lies on one device."""
  return sum(
    leaf.dtype.itemsize * math.prod(leaf.sharding.shard_shape(leaf.shape))
    for leaf in jax.tree.leaves(tree)
  )


def compiler_says(cost: Mapping[str, float], least: float) -> dict[str, float]:
  """The compiler's own counts, of the dispatch with one turn of its loop.

  Its estimate of the time is left out where it is none: negative, or below
  what the published rates allow.
  """
  found = {
    "flops": cost.get("flops", 0.0),
    "bytes_accessed": cost.get("bytes accessed", 0.0),
  }
  seconds = cost.get("optimal_seconds", -1.0)
  return found | ({"seconds": seconds} if seconds >= least else {})
