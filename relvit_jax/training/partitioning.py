"""The device mesh, and which axis of which array lies along it.

Two mesh axes: images are split over both, parameters and optimiser state over
`fsdp` only. `jax.jit` with `NamedSharding` moves the data; this is what pjit
became, and what replaces pmap, which is in maintenance since JAX 0.8.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

DATA_AXES = ("data", "fsdp")

Function = TypeVar("Function", bound=Callable[..., Any])

# The first pattern that matches a parameter's whole path decides; none is an
# error. Matrices are split over their input, which every head divides alike.
RULES = (
  (r".*(bias|scale)", P()),
  (r"backbone/(cls_token|pos_embed)", P()),
  # Its input is only the pixels of a patch: split over the output.
  (r"backbone/patch_embed/proj/kernel", P(None, "fsdp")),
  # Narrow, and the first reads only the pixels of a window: whole everywhere.
  (r"backbone/tokens_to_token/attention\d/.*kernel", P()),
  (r"backbone/tokens_to_token/project/kernel", P(None, "fsdp")),
  (r"backbone/blocks/\d+/(attn/(qkv|proj)|mlp/fc[12])/kernel", P("fsdp")),
  (r"backbone/.*/attn/relative_position_bias_table", P()),
  (
    r"backbone/layers/\d+/blocks/\d+/(attn/(qkv|proj)|mlp/fc[12])/kernel",
    P("fsdp"),
  ),
  (r"backbone/layers/\d+/downsample/reduction/kernel", P("fsdp")),
  (r"heads/\w+/(query|key|proj)/kernel", P("fsdp")),
  (r"heads/\w+/(layers|unshared)/\d+/kernel", P("fsdp")),
)


def make_mesh(fsdp: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
  """All devices as (data × fsdp).

  Args:
    fsdp: over how many devices one copy of the parameters is spread.
    devices: which to use; None for all.

  Raises:
    ValueError: `fsdp` does not divide the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  if fsdp < 1 or len(devices) % fsdp:
    raise ValueError(
      f"mesh.fsdp={fsdp} must divide the {len(devices)} devices, such as "
      f"{_nearest(fsdp, len(devices))}"
    )
  # An axis of the chips' own grid may serve both axes of the mesh, as one of 16
  # does 4 × 4; `jax.make_mesh` has no room for that.
  placed = mesh_utils.create_device_mesh(
    (len(devices) // fsdp, fsdp), devices, allow_split_physical_axes=True
  )
  # Auto axes: with the default, explicit ones, cutting an image into patches
  # would ask for a sharding of its own.
  return Mesh(placed, DATA_AXES, axis_types=(AxisType.Auto, AxisType.Auto))


def _nearest(wanted: int, *lengths: int) -> int:
  """The number next to what was wanted that divides all of these."""
  common = math.gcd(*lengths)
  divisors = [n for n in range(1, common + 1) if common % n == 0]
  return min(divisors, key=lambda n: abs(n - wanted))


def mesh_for(*batch_sizes: int) -> Mesh:
  """As many devices as share batches of these sizes evenly."""
  devices = jax.devices()
  count = math.gcd(len(devices), *batch_sizes)
  return make_mesh(devices=devices[:count])


def check_batch(key: str, batch_size: int, mesh: Mesh) -> None:
  """Raises unless every device gets the same number of images, at least one.

  Args:
    key: of the config, for the message.
  """
  if batch_size < 1 or batch_size % mesh.size:
    below = batch_size // mesh.size * mesh.size
    nearest = [n for n in (below, below + mesh.size) if n > 0]
    raise ValueError(
      f"{key}={batch_size} must be a multiple of the {mesh.size} devices, "
      f"such as {' or '.join(map(str, nearest))}"
    )


def check_config(config: Any) -> Mesh:
  """The mesh of a config, if the devices here can share its batches.

  Raises:
    ValueError: they cannot; names the key, its value and what would do.
  """
  mesh = make_mesh(config.mesh.fsdp)
  for key in ("batch_size", "eval_batch_size"):
    check_batch(key, config[key], mesh)
  return mesh


def replicated(mesh: Mesh) -> NamedSharding:
  """A whole copy on every device."""
  return NamedSharding(mesh, P())


def platform(mesh: Mesh) -> str:
  """Of its devices: cpu, gpu or tpu."""
  return mesh.devices.flat[0].platform


def on_mesh(function: Function, mesh: Mesh) -> Function:
  """The function, traced with the mesh in sight.

  What XLA cannot split by itself, such as a kernel, asks for the mesh.
  """

  @functools.wraps(function)
  def wrapped(*given: Any, **named: Any) -> Any:
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
      return function(*given, **named)

  return wrapped  # pyright: ignore[reportReturnType]


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """The first axis of an array over all devices."""
  return NamedSharding(mesh, P(DATA_AXES))


def params_shardings(params: Any, mesh: Mesh) -> Any:
  """A sharding for every parameter, by `RULES`.

  Args:
    params: tree of arrays or shapes; its paths are those of the model.

  Raises:
    ValueError: no rule matches a parameter, or its axis does not divide.
  """

  def place(path: Any, leaf: Any) -> NamedSharding:
    name = path_name(path)
    spec = spec_of(name)
    for axis, mesh_axis in enumerate(spec):
      if mesh_axis and leaf.shape[axis] % mesh.shape[mesh_axis]:
        raise ValueError(
          f"axis {axis} of {name}, shape {tuple(leaf.shape)}, is not a "
          f"multiple of mesh.{mesh_axis}={mesh.shape[mesh_axis]}, as it is of "
          f"{_nearest(mesh.shape[mesh_axis], leaf.shape[axis], mesh.size)}"
        )
    return NamedSharding(mesh, spec)

  return jax.tree_util.tree_map_with_path(place, params)


def spec_of(name: str) -> P:
  """The partition of the parameter with this path."""
  for pattern, spec in RULES:
    if re.fullmatch(pattern, name):
      return spec
  raise ValueError(
    f"no rule in partitioning.RULES matches the parameter {name!r}"
  )


def path_name(path: Any) -> str:
  """backbone/blocks/0/norm1/scale, from a path of jax.tree_util."""
  return jax.tree_util.keystr(path, simple=True, separator="/")
