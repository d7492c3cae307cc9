"""Every head in PyTorch, on `torch_encoder.Encoder`, for `torch.onnx`."""

from collections.abc import Callable

import flax.linen
import torch
from torch import Tensor
from torch.nn import functional

from convbert_jax.formats.pretrained import Pretrained
from convbert_jax.inference.served_folder import INPUTS
from convbert_jax.inference.torch_encoder import Encoder
from convbert_jax.inference.torch_ops import (
  Parameters,
  activate,
  layer_norm,
  linear,
  row_of,
)
from convbert_jax.model import joint_head
from convbert_jax.model.convbert import ConvBertModel


class ServedModel(Parameters):
  """A model with its head.

  Args:
    pretrained: model and parameters.

  Raises:
    UserError: as `Encoder`, or if the head is not written here.
  """

  def __init__(self, pretrained: Pretrained) -> None:
    model, tree = pretrained.model, flax.linen.unbox(pretrained.params)
    if isinstance(model, ConvBertModel):
      tree = {"convbert": tree}
    head = {name: part for name, part in tree.items() if name != "convbert"}
    super().__init__(head)
    self.convbert = Encoder(model.config, tree["convbert"])
    self.head = row_of(HEADS, "head", type(model).__name__)
    self.model = model

  def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Returns the arrays of `outputs` in its order, for `INPUTS`."""
    return tuple(self.outputs(*inputs).values())

  def outputs(self, *inputs: Tensor) -> dict[str, Tensor]:
    """Returns the arrays of our model's output by name.

    Args:
      *inputs: `INPUTS`, whole numbers [B, T], or [B, C, T] for choices.
    """
    hidden_BxTxM = self.convbert(*(x.flatten(0, -2) for x in inputs))
    return self.head(self, hidden_BxTxM, dict(zip(INPUTS, inputs, strict=True)))


# (model and parameters, hidden [B, T, M], inputs by name) -> outputs by name.
Head = Callable[[ServedModel, Tensor, dict[str, Tensor]], dict[str, Tensor]]


def _encoder(
  head: ServedModel, hidden_BxTxM: Tensor, inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
  del head, inputs
  return {"last_hidden_state": hidden_BxTxM}


def _masked_lm(
  head: ServedModel, hidden_BxTxM: Tensor, inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
  del inputs
  model, params = head.model, head.generator_predictions
  hidden_BxTxE = activate(
    linear(hidden_BxTxM, params.dense),
    model.head_act or model.config.hidden_act,
  )
  hidden_BxTxE = layer_norm(
    hidden_BxTxE, params.LayerNorm, model.config.layer_norm_eps
  )
  table_VxE = (
    head.convbert.embeddings.word_embeddings
    if model.config.tie_word_embeddings
    else head.output_map
  )
  return {"logits": hidden_BxTxE @ table_VxE.T + head.output_bias}


def _discriminator(
  head: ServedModel, hidden_BxTxM: Tensor, inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
  del inputs
  params = head.discriminator_predictions
  hidden_BxTxM = activate(
    linear(hidden_BxTxM, params.dense), head.model.config.hidden_act
  )
  return {"logits": _squeezed(hidden_BxTxM, params.dense_1)}


def _sequence_classifier(
  head: ServedModel, hidden_BxTxM: Tensor, inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
  del inputs
  pooled_BxM, params = hidden_BxTxM[:, 0], head.classifier
  if head.model.classifier_type == "linear":
    return {"logits": linear(pooled_BxM, params)}
  inner_BxM = activate(
    linear(pooled_BxM, params.dense), head.model.config.hidden_act
  )
  return {"logits": linear(inner_BxM, params.out_proj)}


def _token_classifier(
  head: ServedModel, hidden_BxTxM: Tensor, inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
  del inputs
  return {"logits": linear(hidden_BxTxM, head.classifier)}


def _multiple_choice(
  head: ServedModel, hidden_NxTxM: Tensor, inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
  config = head.model.config
  if config.summary_type == "mean":
    vector_NxM = hidden_NxTxM.mean(1)
  else:
    vector_NxM = hidden_NxTxM[:, 0 if config.summary_type == "first" else -1]
  if config.summary_use_proj:
    vector_NxM = linear(vector_NxM, head.sequence_summary.summary)
  if config.summary_activation is not None:
    vector_NxM = activate(vector_NxM, config.summary_activation)
  logits_N = _squeezed(vector_NxM, head.classifier)
  return {"logits": logits_N.reshape(inputs["input_ids"].shape[:2])}


def _question_answering(
  head: ServedModel, hidden_BxTxM: Tensor, inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
  del inputs
  start_BxT, end_BxT = linear(hidden_BxTxM, head.qa_outputs).unbind(-1)
  return {"start_logits": start_BxT, "end_logits": end_BxT}


def _joint_question_answering(
  head: ServedModel, hidden_BxTxM: Tensor, inputs: dict[str, Tensor]
) -> dict[str, Tensor]:
  disallowed_BxT = _disallowed(
    inputs["attention_mask"], inputs["token_type_ids"]
  )
  start_BxT = _squeezed(hidden_BxTxM, head.start) + disallowed_BxT
  shares_Bx1xT = torch.softmax(start_BxT, -1)[:, None]
  both_Bx2M = torch.cat(
    [hidden_BxTxM[:, 0], (shares_Bx1xT @ hidden_BxTxM)[:, 0]], -1
  )
  inner_BxF = functional.gelu(linear(both_Bx2M, head.no_answer_hidden))
  return {
    "start_logits": start_BxT,
    "no_answer_logits": _squeezed(inner_BxF, head.no_answer),
    **_beam_search(head, hidden_BxTxM, start_BxT, disallowed_BxT),
  }


def _disallowed(mask_BxT: Tensor, token_type_ids_BxT: Tensor) -> Tensor:
  """Returns what to add to the logits, 0 where answers can lie, [B, T]."""
  context_BxT = (token_type_ids_BxT != 0) & (mask_BxT != 0)
  is_first_1xT = torch.arange(mask_BxT.shape[1])[None] == 0
  return torch.where(context_BxT | is_first_1xT, 0.0, joint_head.DISALLOWED)


def _beam_search(
  head: ServedModel,
  hidden_BxTxM: Tensor,
  start_BxT: Tensor,
  disallowed_BxT: Tensor,
) -> dict[str, Tensor]:
  """Returns the likeliest starts, and the likeliest ends of each."""
  width, most = hidden_BxTxM.shape[-1], head.model.num_beams
  beams = torch.sym_min(most, start_BxT.shape[1])
  start_BxJ, starts_BxJ = torch.log_softmax(start_BxT, -1).topk(beams)
  kernel = head.qa_hidden.kernel
  token_BxTxF = hidden_BxTxM @ kernel[width:] + head.qa_hidden.bias
  # Of a text of fewer tokens than beams, some starts come twice and are cut.
  filled_BxJ = functional.pad(starts_BxJ, (0, most - beams))
  scores, ends = [], []
  # One start after the other: each needs an inner layer [B, T, F].
  for starts_B in filled_BxJ.unbind(1):
    place = starts_B[:, None, None].expand(-1, 1, width)
    chosen_Bx1xM = hidden_BxTxM.gather(1, place)
    inner_BxTxF = functional.gelu(token_BxTxF + chosen_Bx1xM @ kernel[:width])
    end_BxT = _squeezed(inner_BxTxF, head.end) + disallowed_BxT
    end_BxJ, ends_BxJ = torch.log_softmax(end_BxT, -1).topk(beams)
    scores.append(end_BxJ)
    ends.append(ends_BxJ)
  end_BxJxJ = torch.stack(scores, 1)[:, :beams]
  return {
    "starts": starts_BxJ,
    "ends": torch.stack(ends, 1)[:, :beams],
    "scores": start_BxJ[:, :, None] + end_BxJxJ,
  }


def _squeezed(x: Tensor, params: Parameters) -> Tensor:
  """Maps [..., I] to [...], one number."""
  return linear(x, params)[..., 0]


HEADS: dict[str, Head] = {
  "ConvBertModel": _encoder,
  "ConvBertForMaskedLM": _masked_lm,
  "ConvBertForPreTraining": _discriminator,
  "ConvBertForSequenceClassification": _sequence_classifier,
  "ConvBertForTokenClassification": _token_classifier,
  "ConvBertForMultipleChoice": _multiple_choice,
  "ConvBertForQuestionAnswering": _question_answering,
  "ConvBertForJointQuestionAnswering": _joint_question_answering,
}
