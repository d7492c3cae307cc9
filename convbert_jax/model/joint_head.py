"""The original's head for questions: the end of an answer depends on its start.

It also predicts whether there is an answer. The original's results on SQuAD and
MRQA are those of this head.
"""

from collections.abc import Callable
from typing import Unpack

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from convbert_jax.model import layers
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.convbert import ConvBertModel, Options
from convbert_jax.model.loadable import Loadable
from convbert_jax.model.outputs import (
  JointQuestionAnsweringOutput,
  QuestionAnsweringOutput,
)
from convbert_jax.ops import (
  activations,
  attention,
  grouped_linear,
  losses,
  numerics,
)

# Added to the logits of positions that cannot hold an answer.
DISALLOWED = -1000.0
# Of the no-answer loss, beside that of the span.
_NO_ANSWER_WEIGHT = 0.5

# From one start for each row, [B], to the logits of the ends, [B, T].
Ends = Callable[[jax.Array], jax.Array]


class ConvBertForJointQuestionAnswering(nn.Module, Loadable):
  """Finds where an answer begins, where it ends, and whether there is one.

  Attributes:
    config: of the encoder.
    num_beams: starts that the search keeps, and ends of each; no more than
      there are positions.
    inner_size: width of the layers before the logits of the ends and of there
      being no answer.

  Example:
    model = ConvBertForJointQuestionAnswering(config)
    params = model.init(jax.random.key(0), input_ids)["params"]
    output = model.apply(
      {"params": params}, input_ids, attention_mask, token_type_ids
    )
    output.starts, output.ends, output.scores  # [B, 20], [B, 20, 20] twice
    output.no_answer_logits  # [B]
  """

  config: ConvBertConfig
  num_beams: int = 20
  inner_size: int = 512

  def setup(self) -> None:
    self.convbert = ConvBertModel(self.config)
    self.start = layers.head_linear(self.config, 1)
    # One kernel for start and token side by side, as the original has it, so
    # that its initialiser sees the width of both.
    self.qa_hidden = layers.LinearParameters(
      self.inner_size,
      ("hidden", None),
      layers.GLOROT_UNIFORM,
      dtype=self.config.dtype,
    )
    self.end = layers.LinearParameters(
      1, (None, None), layers.GLOROT_UNIFORM, dtype=self.config.dtype
    )
    self.no_answer_hidden = layers.head_linear(self.config, self.inner_size)
    self.no_answer = layers.head_linear(self.config, 1)

  def __call__(
    self,
    input_ids: jax.Array | None = None,
    attention_mask: jax.Array | None = None,
    token_type_ids: jax.Array | None = None,
    *,
    start_positions: jax.Array | None = None,
    end_positions: jax.Array | None = None,
    is_impossible: jax.Array | None = None,
    **options: Unpack[Options],
  ) -> JointQuestionAnsweringOutput:
    """Returns logits, and the likeliest spans if `deterministic`.

    Args:
      input_ids: see `ConvBertModel`.
      attention_mask: see `ConvBertModel`.
      token_type_ids: see `ConvBertModel`. Answers lie where the type is not 0,
        or at position 0, which means that there is none.
      start_positions: [B], within the sequence; `end_logits` are for these.
      end_positions: [B], within the sequence.
      is_impossible: [B], 1 where there is no answer; a loss needs all three.
      **options: see `ConvBertModel`.
    """
    output = self.convbert(input_ids, attention_mask, token_type_ids, **options)
    hidden_BxTxM = output.last_hidden_state
    disallowed_BxT = _disallowed(
      hidden_BxTxM.shape[:2], attention_mask, token_type_ids
    )
    start_BxT = _squeezed(self.start(hidden_BxTxM)) + disallowed_BxT
    found = {
      "start_logits": start_BxT,
      "no_answer_logits": self._no_answer_logits(hidden_BxTxM, start_BxT),
    }
    ends = self._make_ends(hidden_BxTxM, disallowed_BxT)
    if start_positions is not None:
      found["end_logits"] = ends(start_positions)
    if options.get("deterministic", True):
      beams = jax.core.min_dim(self.num_beams, start_BxT.shape[1])
      found |= _beam_search(start_BxT, ends, beams)
    result = JointQuestionAnsweringOutput(**found, **output.intermediates())
    labels = (start_positions, end_positions, is_impossible)
    if any(label is None for label in labels):
      return result
    return result.replace(loss=jnp.mean(row_losses(result, *labels)))

  def _make_ends(
    self, hidden_BxTxM: jax.Array, disallowed_BxT: jax.Array
  ) -> Ends:
    """Returns the function from starts to the logits of their ends."""
    width, dtype = hidden_BxTxM.shape[-1], self.config.dtype
    kernel, bias_F = (a.astype(dtype) for a in self.qa_hidden(2 * width))
    out_kernel, out_bias = (a.astype(dtype) for a in self.end(self.inner_size))
    # A map of start and token side by side is a map of the start plus one of
    # the token, so that [B, J, T, 2M] is never made.
    token_BxTxF = grouped_linear.linear(hidden_BxTxM, kernel[width:], bias_F)

    def ends(starts_B: jax.Array) -> jax.Array:
      chosen_Bx1xM = jnp.take_along_axis(
        hidden_BxTxM, starts_B[:, None, None], axis=1
      )
      inner_BxTxF = activations.gelu(
        token_BxTxF + chosen_Bx1xM @ kernel[:width]
      )
      logits_BxTx1 = grouped_linear.linear(inner_BxTxF, out_kernel, out_bias)
      return _squeezed(logits_BxTx1) + disallowed_BxT

    return ends

  def _no_answer_logits(
    self, hidden_BxTxM: jax.Array, start_BxT: jax.Array
  ) -> jax.Array:
    shares_BxT = jax.nn.softmax(start_BxT).astype(hidden_BxTxM.dtype)
    start_BxM = jnp.einsum("bt,btm->bm", shares_BxT, hidden_BxTxM)
    both_Bx2M = jnp.concatenate([hidden_BxTxM[:, 0], start_BxM], axis=-1)
    inner_BxF = activations.gelu(self.no_answer_hidden(both_Bx2M))
    return _squeezed(self.no_answer(inner_BxF))


def span_losses(
  output: QuestionAnsweringOutput | JointQuestionAnsweringOutput,
  start_positions_B: jax.Array,
  end_positions_B: jax.Array,
) -> jax.Array:
  """Returns the mean cross-entropy of start and end for each row, [B]."""
  # Gathers the logit, unlike `losses.cross_entropy_per_label`: the gradients
  # round differently, and runs of earlier versions go on as they began.
  cross_entropy = optax.softmax_cross_entropy_with_integer_labels
  return 0.5 * (
    cross_entropy(output.start_logits, start_positions_B)
    + cross_entropy(output.end_logits, end_positions_B)
  )


def row_losses(
  output: JointQuestionAnsweringOutput,
  start_positions_B: jax.Array,
  end_positions_B: jax.Array,
  is_impossible_B: jax.Array,
) -> jax.Array:
  """Returns the loss of each row, in nats, [B].

  It is that of `span_losses` plus half the cross-entropy of `is_impossible`.
  """
  no_answer_B = losses.binary_cross_entropy_per_label(
    output.no_answer_logits, is_impossible_B
  )
  spans_B = span_losses(output, start_positions_B, end_positions_B)
  return spans_B + _NO_ANSWER_WEIGHT * no_answer_B


def _squeezed(logits: jax.Array) -> jax.Array:
  """Returns logits [..., 1] as [...], in float32 at least."""
  return numerics.precise(logits)[..., 0]


def _disallowed(
  shape: tuple[int, int],
  attention_mask: jax.Array | None,
  token_type_ids: jax.Array | None,
) -> jax.Array:
  """Returns what to add to the logits, 0 where answers can lie, [B, T]."""
  allowed_BxT = jnp.arange(shape[1])[None, :] == 0
  if token_type_ids is not None:
    context_BxT = token_type_ids != 0
    if attention_mask is not None:
      context_BxT &= attention.real_positions(attention_mask) != 0
    allowed_BxT = allowed_BxT | context_BxT
  return jnp.where(allowed_BxT, 0.0, DISALLOWED)


def _beam_search(
  start_BxT: jax.Array, ends: Ends, beams: int
) -> dict[str, jax.Array]:
  """Returns the likeliest starts, and the likeliest ends of each."""
  start_BxJ, starts_BxJ = jax.lax.top_k(jax.nn.log_softmax(start_BxT), beams)

  def ends_of(starts_B: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jax.lax.top_k(jax.nn.log_softmax(ends(starts_B)), beams)

  # One start after the other: each needs an inner layer [B, T, F], and all at
  # once would need `beams` times that.
  end_JxBxJ, ends_JxBxJ = jax.lax.map(ends_of, starts_BxJ.T)
  return {
    "starts": starts_BxJ,
    "ends": jnp.swapaxes(ends_JxBxJ, 0, 1),
    "scores": start_BxJ[:, :, None] + jnp.swapaxes(end_JxBxJ, 0, 1),
  }
