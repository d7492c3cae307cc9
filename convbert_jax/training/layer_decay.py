"""Learning rates that fall from the head of a network to its embeddings."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp

from convbert_jax import ranges
from convbert_jax.errors import unknown_name

RateScale = Callable[[jax.tree_util.KeyPath, jax.Array], jax.Array]

EXPONENTS = ("original", "conventional")

_EMBEDDINGS = re.compile("(^|/)convbert/embeddings(_project)?/")
# All layers are one stack, or several, named by their first layers.
_LAYERS = re.compile(r"(^|/)convbert/encoder/layers(_(?P<first>\d+))?/")
_ENCODER = re.compile("(^|/)convbert(/|$)")


def layer_rate_scale(
  decay: float, num_layers: int, exponents: str = "original"
) -> RateScale | None:
  """Returns what each parameter's learning rate is multiplied by.

  A head has 1; layer `i` of `L`, from 0, has `decay ** (L + 1 - i)`; the
  embeddings and their projection have `decay ** (L + 2)`. So the original has
  it (reference: `_get_layer_lrs` of its optimizer), which leaves the exponent
  1 out; "conventional" takes one less of each: `decay` for the last layer.

  Args:
    decay: in (0, 1]; 1 gives every parameter the same rate.
    num_layers: `L`.
    exponents: "original" or "conventional".

  Returns:
    A function from a parameter's path and the parameter to a factor that
    broadcasts to it: layers are stacked on their first axis, so they get
    [L, 1, ...], all others a scalar. None for a decay of 1.

  Raises:
    UserError: if the decay is out of range or the exponents are unknown. The
      function raises `ValueError` for a parameter of the encoder that is
      neither in a layer nor in the embeddings.
  """
  ranges.check("optimizer", {"layer_decay": decay})
  if exponents not in EXPONENTS:
    raise unknown_name("optimizer.layer_decay_exponents", exponents, EXPONENTS)
  if decay == 1.0:
    return None
  top = num_layers + (2 if exponents == "original" else 1)
  # By the layer's number, the last one first to be reached from the head.
  of_layers = [decay ** (top - 1 - layer) for layer in range(num_layers)]

  def scale(path: jax.tree_util.KeyPath, param: jax.Array) -> jax.Array:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if _EMBEDDINGS.search(name):
      return jnp.float32(decay**top)
    if found := _LAYERS.search(name):
      factors = of_layers
      if found["first"]:
        factors = of_layers[int(found["first"]) :][: param.shape[0]]
      shape = (len(factors), *(1 for _ in param.shape[1:]))
      return jnp.array(factors, jnp.float32).reshape(shape)
    if _ENCODER.search(name):
      raise ValueError(f"no layer-wise learning rate is known for {name}")
    return jnp.float32(1)

  return scale
