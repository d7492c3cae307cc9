"""What the models return."""

import flax.struct
import jax


@flax.struct.dataclass
class ModelOutput:
  """What `ConvBertModel` returns.

  Attributes:
    last_hidden_state: [B, T, M].
    hidden_states: the embeddings at model width, then each layer's output;
      `L + 1` arrays [B, T, M], or None if not asked for.
    attentions: probabilities after dropout and head mask, `L` arrays
      [B, H, T, T] over the kept heads, or None if not asked for.
    conv_kernels: weights of the window around each position, `L` arrays
      [B, T, H, K] over the convolution heads, or None if not asked for.
  """

  last_hidden_state: jax.Array
  hidden_states: tuple[jax.Array, ...] | None = None
  attentions: tuple[jax.Array, ...] | None = None
  conv_kernels: tuple[jax.Array, ...] | None = None


@flax.struct.dataclass
class HeadOutput:
  """Logits of a head beside what the encoder returned.

  Attributes:
    logits: float32 at least, shape as the head's docstring says.
    loss: mean loss in nats (squared error for a regression), or None without
      labels.
    hidden_states: as in `ModelOutput`.
    attentions: as in `ModelOutput`.
    conv_kernels: as in `ModelOutput`.
  """

  logits: jax.Array
  loss: jax.Array | None = None
  hidden_states: tuple[jax.Array, ...] | None = None
  attentions: tuple[jax.Array, ...] | None = None
  conv_kernels: tuple[jax.Array, ...] | None = None


@flax.struct.dataclass
class QuestionAnsweringOutput:
  """Where an answer begins and ends.

  Attributes:
    start_logits: float32 at least, [B, T].
    end_logits: the same.
    loss: mean of both cross-entropies in nats, or None without positions.
    hidden_states: as in `ModelOutput`.
    attentions: as in `ModelOutput`.
    conv_kernels: as in `ModelOutput`.
  """

  start_logits: jax.Array
  end_logits: jax.Array
  loss: jax.Array | None = None
  hidden_states: tuple[jax.Array, ...] | None = None
  attentions: tuple[jax.Array, ...] | None = None
  conv_kernels: tuple[jax.Array, ...] | None = None


def kept(output: ModelOutput) -> dict[str, tuple[jax.Array, ...] | None]:
  """Returns the fields that every head hands on from its encoder."""
  return {
    "hidden_states": output.hidden_states,
    "attentions": output.attentions,
    "conv_kernels": output.conv_kernels,
  }
