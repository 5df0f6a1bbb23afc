"""The same training step in PyTorch, as one would write it today.

Hugging Face's ViT, the pair heads and losses of RelViT beside it, AdamW with a
clipped gradient. It is what `relvit benchmark --rivals` measures against, and
is imported by nothing else: PyTorch and Transformers are an optional extra.

Run as a program it reads a line of JSON, the arguments of `Step`, and then
numbers of steps, a line each; it answers each with a line.
"""

from __future__ import annotations

import importlib.metadata
import json
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

from relvit_jax import grid

_SCORES = {"relation": 9, "distance": 1, "angle": 1}


class PairwiseHead(torch.nn.Module):
  """Scaled products of a query and a key of every pair of patches."""

  def __init__(self, dim: int, num_scores: int):
    super().__init__()
    self.num_scores = num_scores
    inner = dim // num_scores * num_scores
    self.query = torch.nn.Linear(dim, inner, bias=False)
    self.key = torch.nn.Linear(dim, inner, bias=False)

  def forward(self, tokens: Any) -> Any:
    split = (*tokens.shape[:2], self.num_scores, -1)
    query = self.query(tokens).view(split).transpose(1, 2)  # [B, R, N, d]
    key = self.key(tokens).view(split).transpose(1, 2)
    return query @ key.transpose(2, 3) * query.shape[-1] ** -0.5


class Model(torch.nn.Module):
  """Images [B,3,H,W] → one output a task, shaped as `create_model`'s."""

  def __init__(
    self,
    image_size: int,
    patch_size: int,
    tasks: Sequence[str],
    num_classes: int | None = None,
    *,
    embed_dim: int,
    depth: int,
    num_heads: int,
    mlp_ratio: float | int = 4.0,
    qkv_bias: bool = True,
    pos_embed: bool = True,
  ):
    super().__init__()
    self.vit = transformers.ViTModel(
      transformers.ViTConfig(
        image_size=image_size,
        patch_size=patch_size,
        hidden_size=embed_dim,
        num_hidden_layers=depth,
        num_attention_heads=num_heads,
        intermediate_size=int(embed_dim * mlp_ratio),
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        qkv_bias=qkv_bias,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
      ),
      add_pooling_layer=False,
    )
    if not pos_embed:
      # It cannot be left out.
      positions = self.vit.embeddings.position_embeddings
      torch.nn.init.zeros_(positions)
      positions.requires_grad_(False)
    patches = (image_size // patch_size) ** 2
    heads: dict[str, torch.nn.Module] = {}
    for task in tasks:
      if task in _SCORES:
        heads[task] = PairwiseHead(embed_dim, _SCORES[task])
      else:
        classes = patches if task == "position" else num_classes
        if classes is None:
          raise ValueError(f"the task {task!r} needs num_classes")
        heads[task] = torch.nn.Linear(embed_dim, classes)
    self.heads = torch.nn.ModuleDict(heads)

  def forward(self, images: Any) -> dict[str, Any]:
    tokens = self.vit(pixel_values=images).last_hidden_state
    outputs = {}
    for task, head in self.heads.items():
      scores = head(tokens[:, 0] if task == "label" else tokens[:, 1:])
      scores = scores.float()
      outputs[task] = scores[:, 0] if _SCORES.get(task) == 1 else scores
    return outputs


def targets(side: int, device: Any = "cpu") -> dict[str, Any]:
  """What the tasks ask for, of side² patches."""
  tables = {
    "relation": grid.relations(side, side).astype(np.int64),
    "distance": grid.distances(side, side),
    "angle": grid.angles(side, side),
    "position": grid.positions(side, side).astype(np.int64),
  }
  return {
    task: torch.as_tensor(np.array(table), device=device)[None]
    for task, table in tables.items()
  }


def losses(
  outputs: Mapping[str, Any], wanted: Mapping[str, Any]
) -> dict[str, Any]:
  """As `objectives.losses` without weights."""
  result = {}
  for task, output in outputs.items():
    target = wanted[task]
    if task == "relation":
      target = target.expand(len(output), -1, -1)
      result[task] = functional.cross_entropy(output, target)
    elif task == "position":
      target = target.expand(len(output), -1)
      result[task] = functional.cross_entropy(output.transpose(1, 2), target)
    elif task == "label":
      result[task] = functional.cross_entropy(output, target)
    else:
      result[task] = functional.mse_loss(output, target.expand_as(output))
  result["total"] = sum(result.values())
  return result


class Step:
  """A training step on one batch that stays.

  Args:
    model: the arguments of `Model`.
    batch: images.
    lr, weight_decay, clip_norm: of AdamW, which decays everything.
    compiled: whether `torch.compile` fuses the model and its losses.
    bfloat16: whether products are computed in it, by autocast.
    device: cpu or cuda.
    threads: of a CPU.
  """

  def __init__(
    self,
    model: Mapping[str, Any],
    batch: int,
    lr: float | int,
    weight_decay: float | int,
    clip_norm: float | int | None,
    *,
    compiled: bool = False,
    bfloat16: bool = False,
    device: str = "cpu",
    threads: int = 1,
  ):
    self.on_gpu = device == "cuda"
    torch.set_num_threads(threads)
    # What JAX does on a GPU with float32.
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    self.model = Model(**model).to(device).train()
    size, classes = model["image_size"], model.get("num_classes") or 1
    wanted = targets(size // model["patch_size"], device)
    wanted["label"] = torch.randint(0, classes, (batch,), device=device)
    self._images = torch.randn(batch, 3, size, size, device=device)

    def loss(images: Any) -> Any:
      with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
        outputs = self.model(images)
      return losses(outputs, wanted)["total"]

    self._loss = torch.compile(loss) if compiled else loss
    self._trained = [p for p in self.model.parameters() if p.requires_grad]
    self._optimizer = torch.optim.AdamW(
      self._trained, lr=lr, weight_decay=weight_decay, fused=True
    )
    self._clip_norm = clip_norm

  def run(self, count: int) -> float:
    """The last of so many losses, waited for."""
    loss = torch.tensor(0.0)
    for _ in range(count):
      self._optimizer.zero_grad(set_to_none=True)
      loss = self._loss(self._images)
      loss.backward()
      if self._clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(self._trained, self._clip_norm)
      self._optimizer.step()
    return loss.item()

  def peak_bytes(self) -> int:
    """Of the GPU, or else of the process."""
    if self.on_gpu:
      return torch.cuda.max_memory_allocated()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
  """Answers until there is nothing more to read."""
  step = Step(**json.loads(sys.stdin.readline()))
  for line in sys.stdin:
    began = time.perf_counter()
    loss = step.run(int(line))
    answer = {
      "seconds": time.perf_counter() - began,
      "loss": loss,
      "peak_bytes": step.peak_bytes(),
      "torch": torch.__version__,
      "transformers": importlib.metadata.version("transformers"),
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
  main()
