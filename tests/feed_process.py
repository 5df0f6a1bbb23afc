"""One of several processes: writes down which examples its devices get."""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from relvit_jax.data import feed, sources
from relvit_jax.training import distributed, partitioning

STEPS, BATCH = 5, 32
WORDS = np.array([7, 11], np.uint32)


def blocks(stream):
  """{step: the images that this process's devices hold, with their rows}."""
  mesh = partitioning.make_mesh()
  made = feed.make(
    sources.digits()["train"],
    batch_size=BATCH,
    max_steps=STEPS,
    mesh=mesh,
    stream=stream,
  )
  data = made.block(WORDS, 3, STEPS)
  batch_of = jax.jit(
    lambda data, i: made.batches(jnp.asarray(WORDS), data, jnp.int32(3))(i),
    out_shardings=partitioning.batch_sharding(mesh),
  )
  result = {}
  for i in range(STEPS):
    images = batch_of(data, i)["image"]
    for shard in images.addressable_shards:
      start, stop, _ = shard.index[0].indices(BATCH)
      for row, image in zip(
        range(start, stop), np.asarray(shard.data), strict=True
      ):
        result[f"{i}/{row}"] = image
  return result


def main():
  parser = argparse.ArgumentParser()
  parser.add_argument("--coordinator_address")
  parser.add_argument("--num_processes", type=int)
  parser.add_argument("--process_id", type=int)
  parser.add_argument("--to", type=pathlib.Path)
  parser.add_argument("--stream", action="store_true")
  told = parser.parse_args()
  distributed.start(
    told.coordinator_address, told.num_processes, told.process_id
  )
  np.savez(told.to / f"{told.process_id}.npz", **blocks(told.stream))


if __name__ == "__main__":
  main()
