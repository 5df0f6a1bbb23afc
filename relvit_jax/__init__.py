"""RelViT in JAX: vision transformers that learn where patches sit.

`create_model` is the way in. It is imported when it is first asked for, so
that `relvit --help` does not wait for JAX.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["create_model"]

if TYPE_CHECKING:
  from relvit_jax.models.relvit import create_model


def __getattr__(name: str) -> Any:
  if name == "create_model":
    from relvit_jax.models.relvit import create_model

    return create_model
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
