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

  def spans(self) -> dict[str, jax.Array]:
    """Returns what `convbert_jax.spans` reads answers from, [B, T] each."""
    return {"start_logits": self.start_logits, "end_logits": self.end_logits}


@flax.struct.dataclass
class JointQuestionAnsweringOutput:
  """Where an answer begins, where it then ends, and whether there is one.

  N, at most `T`, are the starts looked at, and as many ends of each; the
  likeliest come first.

  Attributes:
    start_logits: float32 at least, [B, T].
    no_answer_logits: of there being no answer, [B].
    end_logits: of the ends that go with the start given, [B, T], or None
      without one.
    starts: the likeliest, int32 [B, N]; None, like the two below, in training.
    ends: the likeliest of each start, int32 [B, N, N].
    scores: log-probabilities of start and end together, [B, N, N].
    loss: mean over the rows in nats, or None without labels.
    hidden_states: as in `ModelOutput`.
    attentions: as in `ModelOutput`.
    conv_kernels: as in `ModelOutput`.
  """

  start_logits: jax.Array
  no_answer_logits: jax.Array
  end_logits: jax.Array | None = None
  starts: jax.Array | None = None
  ends: jax.Array | None = None
  scores: jax.Array | None = None
  loss: jax.Array | None = None
  hidden_states: tuple[jax.Array, ...] | None = None
  attentions: tuple[jax.Array, ...] | None = None
  conv_kernels: tuple[jax.Array, ...] | None = None

  def spans(self) -> dict[str, jax.Array]:
    """Returns what `convbert_jax.spans` reads answers from."""
    return {
      "starts": self.starts,
      "ends": self.ends,
      "scores": self.scores,
      "no_answer": self.no_answer_logits,
    }


def kept(output: ModelOutput) -> dict[str, tuple[jax.Array, ...] | None]:
  """Returns the fields that every head hands on from its encoder."""
  return {
    "hidden_states": output.hidden_states,
    "attentions": output.attentions,
    "conv_kernels": output.conv_kernels,
  }
