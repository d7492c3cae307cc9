"""What the models return."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, cast

import flax.struct
import jax


def _optional() -> Any:
  """Returns a field that is None by default, and given by name alone."""
  # Fields of the subclasses that are required can then follow it.
  return dataclasses.field(default=None, kw_only=True)


class Output(Mapping[str, Any]):
  """Arrays by name, by place and as a tuple, as transformers' outputs are.

  What is None is not there. The loss is first, what every layer has put out
  last.
  """

  def to_tuple(self) -> tuple[Any, ...]:
    """Returns what there is, in the order of places."""
    return tuple(self.values())

  def __getitem__(self, place: int | slice | str) -> Any:
    found = self._found()
    if isinstance(place, str):
      return found[place]
    return tuple(found.values())[place]

  def __iter__(self) -> Iterator[str]:
    return iter(self._found())

  def __len__(self) -> int:
    return len(self._found())

  def _found(self) -> dict[str, Any]:
    names = [field.name for field in dataclasses.fields(cast(Any, self))]
    # Those of the base class come first in `names`.
    names.sort(key=lambda name: (name != "loss", name in _OF_LAYERS))
    values = {name: getattr(self, name) for name in names}
    return {name: x for name, x in values.items() if x is not None}


_OF_LAYERS = ("hidden_states", "attentions", "conv_kernels")


@flax.struct.dataclass
class Intermediates(Output):
  """Arrays of every layer; each is None unless asked for.

  Attributes:
    hidden_states: the embeddings at model width, then each layer's output;
      `L + 1` arrays [B, T, M].
    attentions: probabilities after dropout and head mask, `L` arrays
      [B, H, T, T] over the attention heads kept.
    conv_kernels: weights of the window around each position, an array
      [B, T, H, K] over the convolution heads for each layer that has them.
  """

  hidden_states: tuple[jax.Array, ...] | None = _optional()
  attentions: tuple[jax.Array, ...] | None = _optional()
  conv_kernels: tuple[jax.Array, ...] | None = _optional()

  def intermediates(self) -> dict[str, tuple[jax.Array, ...] | None]:
    """Returns them by name, for the output of a head."""
    return {
      "hidden_states": self.hidden_states,
      "attentions": self.attentions,
      "conv_kernels": self.conv_kernels,
    }


@flax.struct.dataclass
class ModelOutput(Intermediates):
  """What `ConvBertModel` returns.

  Attributes:
    last_hidden_state: [B, T, M].
  """

  last_hidden_state: jax.Array


@flax.struct.dataclass
class HeadOutput(Intermediates):
  """Logits of a head.

  Attributes:
    logits: float32 at least, of the shape that the head's docstring gives.
    loss: mean loss in nats (squared error for a regression), or None without
      labels.
  """

  logits: jax.Array
  loss: jax.Array | None = None


@flax.struct.dataclass
class QuestionAnsweringOutput(Intermediates):
  """Where an answer begins and ends.

  Attributes:
    start_logits: float32 at least, [B, T].
    end_logits: likewise.
    loss: mean of both cross-entropies in nats, or None without positions.
  """

  start_logits: jax.Array
  end_logits: jax.Array
  loss: jax.Array | None = None

  def spans(self) -> dict[str, jax.Array]:
    """Returns the arrays that answers are decoded from, [B, T] each."""
    return {"start_logits": self.start_logits, "end_logits": self.end_logits}


@flax.struct.dataclass
class JointQuestionAnsweringOutput(Intermediates):
  """Where an answer begins, where it then ends, and whether there is one.

  The search keeps the `J` likeliest starts and the `J` likeliest ends of each,
  the likeliest first.

  Attributes:
    start_logits: float32 at least, [B, T].
    no_answer_logits: of there being no answer, [B].
    end_logits: of the ends that go with the given start, [B, T], or None
      without one.
    starts: int32 [B, J]; None, like the next two, in training.
    ends: int32 [B, J, J].
    scores: log-probability of start and end together, [B, J, J].
    loss: mean over the rows in nats, or None without labels.
  """

  start_logits: jax.Array
  no_answer_logits: jax.Array
  end_logits: jax.Array | None = None
  starts: jax.Array | None = None
  ends: jax.Array | None = None
  scores: jax.Array | None = None
  loss: jax.Array | None = None

  def spans(self) -> dict[str, jax.Array]:
    """Returns the arrays that answers are decoded from."""
    return {
      "starts": self.starts,
      "ends": self.ends,
      "scores": self.scores,
      "no_answer": self.no_answer_logits,
    }
