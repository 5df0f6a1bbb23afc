"""What a user would pick instead, measured beside ours: PyTorch's step.

It runs in a process of its own, so that neither its threads nor its memory
disturb ours; one batch waits there, and steps are taken when they are asked
for, so that both can be measured in turn.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from typing import Any

import relvit_jax
from relvit_jax.analysis import timing
from relvit_jax.models import variants

NEEDS = ("torch", "transformers")
NAMES = {"pytorch": False, "pytorch_compiled": True}


def missing() -> list[str]:
  """What would have to be installed; nothing is imported."""
  return [name for name in NEEDS if importlib.util.find_spec(name) is None]


def unlike(devices: int, platform: str) -> str | None:
  """Why PyTorch has no device to compare ours with; None where it has.

  A CPU is one, however many devices it plays.
  """
  if platform == "cpu" or (platform == "gpu" and devices == 1):
    return None
  return (
    f"PyTorch's step runs on the CPU or one GPU, and ours here on {devices} × "
    f"{platform}"
  )


def problems(config: Any) -> list[str]:
  """Why Hugging Face's ViT cannot be what a config asks for; a line a key."""
  model = config.model
  found = []
  if variants.family_of(model.backbone) != "vit":
    found.append(
      f"model.backbone={model.backbone!r} must be a ViT: it is compared with "
      "Hugging Face's"
    )
  for key, value, wanted in (
    ("model.cls_token", model.cls_token, True),
    ("model.cls_to_patches", model.cls_to_patches, False),
    ("model.attention_mask", model.attention_mask, None),
    ("freeze_backbone", config.freeze_backbone, False),
  ):
    if value != wanted:
      found.append(f"{key}={value!r} must be {wanted!r} for the comparison")
  if "drloc" in config.tasks:
    found.append(
      f"tasks={tuple(config.tasks)!r} must be without drloc for the comparison"
    )
  return found


def specification(
  config: Any,
  image_size: int,
  num_classes: int,
  bfloat16: bool,
  platform: str,
  threads: int,
) -> dict[str, Any]:
  """The arguments of `pytorch_step.Step`, but whether it is compiled.

  Args:
    config: without `problems`.
    image_size: pixels a side of what the model is shown.
    num_classes: of the labels.
    bfloat16: whether ours computes in it.
    platform: of our device.
    threads: of a CPU.
  """
  model, settings = config.model, config.optimizer
  sizes = variants.sizes_of(model.backbone) | {
    key: value for key, value in model.items() if value is not None
  }
  names = ("embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias")
  return {
    "model": {
      "image_size": image_size,
      "patch_size": model.patch_size,
      "tasks": list(config.tasks),
      "num_classes": num_classes,
      "pos_embed": model.pos_embed,
      **{name: sizes[name] for name in names if name in sizes},
    },
    "batch": config.batch_size,
    "lr": settings.lr,
    "weight_decay": settings.weight_decay,
    "clip_norm": settings.clip_norm,
    "bfloat16": bfloat16,
    "device": "cuda" if platform == "gpu" else "cpu",
    "threads": threads,
  }


class Rival:
  """A part that another process does; to be closed.

  It stands still while it is not asked: threads that wait for more work would
  take time from what is measured in turn with it.

  Attributes:
    name, most, least, planned_bytes: as of `part.Part`.
    answer: what the process said last.
  """

  most, least = 2**12, 1
  planned_bytes = None

  def __init__(self, name: str, specification: dict[str, Any]):
    self.name = name
    self.answer: dict[str, Any] = {}
    root = str(pathlib.Path(relvit_jax.__file__).parents[1])
    paths = [root, os.environ.get("PYTHONPATH", "")]
    self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
    self._process = subprocess.Popen(
      [sys.executable, "-m", "relvit_jax.analysis.pytorch_step"],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._errors,
      text=True,
      env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
    )
    self._send(json.dumps(specification | {"compiled": NAMES[name]}))

  def clock(self, count: int) -> timing.Clock:
    """Says how long so many steps took over there.

    Raises:
      OSError: the process ended; with the end of what it complained of.
    """

    def clock() -> float:
      self._process.send_signal(signal.SIGCONT)
      self._send(str(count))
      assert self._process.stdout is not None
      line = self._process.stdout.readline()
      self._process.send_signal(signal.SIGSTOP)
      if not line:
        raise self._ended()
      self.answer = json.loads(line)
      return self.answer["seconds"]

    return clock

  def _send(self, line: str) -> None:
    assert self._process.stdin is not None
    try:
      self._process.stdin.write(f"{line}\n")
      self._process.stdin.flush()
    except BrokenPipeError:
      raise self._ended() from None

  def _ended(self) -> OSError:
    self._process.wait()
    self._errors.seek(0)
    last = self._errors.read().strip().splitlines()[-3:]
    return OSError(f"PyTorch's step ended, {self.name}: {' '.join(last)}")

  def close(self) -> None:
    """Ends the process."""
    for pipe in (self._process.stdin, self._process.stdout):
      assert pipe is not None
      with contextlib.suppress(BrokenPipeError):
        pipe.close()
    self._process.kill()  # What stands still does not see SIGTERM.
    self._process.wait()
    self._errors.close()

  def __enter__(self) -> Rival:
    return self

  def __exit__(self, *error: object) -> None:
    self.close()
