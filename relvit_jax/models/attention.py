"""Multi-head self-attention, and the ways to compute it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from relvit_jax.models import (
  attention_kernel,
  attention_products,
  attention_triton,
  layers,
  norms,
)
from relvit_jax.models.variants import ATTENTION_MASKS, ATTENTIONS


def attention_mask(kind: str, length: int) -> Bool[np.ndarray, "T T"]:
  """Whether token i, by row, may attend to token j; the class token is first.

  Raises:
    ValueError: there is no such mask.
  """
  if kind not in ATTENTION_MASKS:
    raise ValueError(
      f"attention_mask={kind!r} does not exist; there are "
      f"{', '.join(ATTENTION_MASKS)}"
    )
  mask = np.eye(length, dtype=bool)
  if kind == "diagonal_cls_row":
    mask[:1] = True
  return mask


class Attention(nnx.Module):
  """Multi-head self-attention with one fused query-key-value projection.

  Args:
    dim: width D of a token.
    num_heads: it must divide D.
    mask: as of `attention_mask`; None: all attend to all.
    implementation: one of `variants.ATTENTIONS`, alike but for rounding.
      "einsum" are products that XLA fuses with what is around them, and that
      JAX differentiates; "products" is `attention_products`, for CPUs, "kernel"
      `attention_kernel`, for TPUs, "triton" `attention_triton`, for GPUs; "xla"
      and "cudnn" are those of `jax.nn.dot_product_attention`, the second for
      bfloat16 on GPUs.
  """

  def __init__(
    self,
    dim: int,
    num_heads: int,
    *,
    qkv_bias: bool = True,
    mask: str | None = None,
    implementation: str = "einsum",
    dropout_rate: float = 0.0,
    attention_dropout_rate: float = 0.0,
    dtype: layers.Dtype = None,
    rngs: nnx.Rngs,
  ):
    if dim % num_heads:
      raise ValueError(
        f"num_heads={num_heads} must divide the width embed_dim={dim}"
      )
    check_implementation(implementation, mask, attention_dropout_rate)
    self.num_heads = num_heads
    self.mask = mask
    self.implementation = implementation
    self.qkv = layers.linear(
      dim, 3 * dim, use_bias=qkv_bias, dtype=dtype, rngs=rngs
    )
    self.proj = layers.linear(dim, dim, dtype=dtype, rngs=rngs)
    self.attention_dropout = nnx.Dropout(attention_dropout_rate)
    self.dropout = nnx.Dropout(dropout_rate)

  @jax.named_scope("attention")
  def __call__(
    self,
    x: Float[Array, "B N D"],
    *,
    norm: nnx.LayerNorm | None = None,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> Float[Array, "B N D"]:
    """What each token takes from all.

    Args:
      x: tokens.
      norm: of the tokens, before that.
      train: whether dropout acts; it then draws from `rngs`.
      rngs: with a stream `dropout`.
    """
    made, bias = self.unbiased(x, norm=norm, train=train, rngs=rngs)
    made = (made + bias[None]).reshape(x.shape)
    return self.dropout(made, deterministic=not train, rngs=rngs)

  @jax.named_scope("attention")
  def unbiased(
    self,
    x: Float[Array, "B N D"],
    *,
    norm: nnx.LayerNorm | None = None,
    is_normalised: bool = False,
    train: bool = False,
    rngs: nnx.Rngs | None = None,
  ) -> tuple[Float[Array, "M D"], Float[Array, " D"]]:
    """(the same, a row a token, without dropout, the bias still to be added).

    Args:
      x: as of a call.
      norm: the same.
      is_normalised: whether the norm has its scale and bias left to give.
      train: as of a call.
      rngs: the same.
    """
    rows, sizes = layers.rows(x), (x.shape[1], self.num_heads)
    qkv, bias = norms.unbiased(
      self.qkv, rows, norm, is_normalised=is_normalised
    )
    mixed: Any
    if self.implementation == "triton":
      mixed = attention_triton.attend(qkv, bias, *sizes)
    elif self.implementation == "kernel":
      mixed = attention_kernel.attend(qkv + bias[None], *sizes)
    elif self.implementation == "products":
      mixed = attention_products.attend(qkv + bias[None], *sizes)
    else:
      parts = self._heads(qkv + bias[None], x.shape)
      if self.implementation == "einsum":
        mixed = self._by_einsum(*parts, train=train, rngs=rngs)
      else:
        mixed = self._by_library(*parts)
      mixed = jnp.swapaxes(mixed, 1, 2).reshape(rows.shape)
    return norms.unbiased(self.proj, mixed)

  def weights(self, x: Float[Array, "B N D"]) -> Float[Array, "B heads N N"]:
    """How much token i takes from token j in each head; rows sum to 1."""
    query, key, _ = self._heads(self.qkv(layers.rows(x)), x.shape)
    return self._attend(query, key)

  def _heads(
    self, qkv: Float[Array, "M F"], shape: tuple[int, ...]
  ) -> Float[Array, "3 B heads N d"]:
    """Query, key and value, moved once for all products that follow."""
    batch, length, _ = shape
    qkv = qkv.reshape(batch, length, 3, self.num_heads, -1)
    return qkv.transpose(2, 0, 3, 1, 4)

  def _by_einsum(
    self,
    query: Float[Array, "B heads N d"],
    key: Float[Array, "B heads N d"],
    value: Float[Array, "B heads N d"],
    *,
    train: bool,
    rngs: nnx.Rngs | None,
  ) -> Float[Array, "B heads N d"]:
    weights = self._attend(query, key).astype(value.dtype)
    weights = self.attention_dropout(
      weights, deterministic=not train, rngs=rngs
    )
    return jnp.einsum("bhij,bhjd->bhid", weights, value)

  def _by_library(
    self, *parts: Float[Array, "B heads N d"]
  ) -> Float[Array, "B heads N d"]:
    batch, _, length, _ = parts[0].shape
    known: dict[str, Any] = {"implementation": self.implementation}
    if self.implementation == "cudnn" and length % 2:
      # Its backward pass takes an even number of tokens; one is told not to be.
      parts = tuple(
        jnp.pad(part, ((0, 0), (0, 0), (0, 1), (0, 0))) for part in parts
      )
      there = jnp.full((batch,), length, jnp.int32)
      known |= {"query_seq_lengths": there, "key_value_seq_lengths": there}
    mixed = jax.nn.dot_product_attention(
      *(jnp.swapaxes(part, 1, 2) for part in parts), **known
    )
    return jnp.swapaxes(mixed, 1, 2)[:, :, :length]

  def _attend(
    self, query: Float[Array, "B heads N d"], key: Float[Array, "B heads N d"]
  ) -> Float[Array, "B heads N N"]:
    scores = jnp.einsum(
      "bhid,bhjd->bhij", query, key, preferred_element_type=jnp.float32
    )
    scores *= query.shape[-1] ** -0.5
    if self.mask is not None:
      allowed = attention_mask(self.mask, query.shape[2])
      scores = jnp.where(allowed[None, None], scores, -jnp.inf)
    return jax.nn.softmax(scores, axis=-1)


def check_implementation(
  implementation: str, mask: str | None, dropout_rate: float
) -> None:
  """Raises where an implementation does not exist or cannot do this."""
  if implementation not in ATTENTIONS:
    raise ValueError(
      f"attention={implementation!r} does not exist; there are "
      f"{', '.join(ATTENTIONS)}"
    )
  if implementation == "einsum":
    return
  for name, value in (
    ("attention_mask", mask),
    ("attention_dropout_rate", dropout_rate),
  ):
    if value:
      raise ValueError(
        f"attention={implementation!r} has no {name}={value!r}; "
        "attention='einsum' has"
      )
