"""What a pre-trained model makes of a text, token by token, to look at."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from convbert_jax.data import loader
from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.data.manifest import load_manifest
from convbert_jax.errors import UserError
from convbert_jax.formats.pretrained import Pretrained
from convbert_jax.model.segments import check_alike
from convbert_jax.objective import run_folder
from convbert_jax.objective.kinds import make_pretraining
from convbert_jax.objective.pretraining import Batch
from convbert_jax.training import sharding


class SeenToken(NamedTuple):
  """A token of a corrupted text.

  Attributes:
    text: the token that the discriminator sees.
    original: the one that was there.
    probability: how likely it is to have been replaced, the model finds.
  """

  text: str
  original: str
  probability: float


def corrupted_texts(
  workdir: str, num_texts: int, seed: int = 0
) -> list[list[SeenToken]]:
  """Corrupts held-out texts as pre-training does and lets the model look.

  Args:
    workdir: of a pre-training run; its records must still be there.
    num_texts: how many, from the first held-out text on.
    seed: of the positions and the generator's samples.

  Returns:
    The tokens of every text, without pads.

  Raises:
    UserError: if there is no such run, or it has no discriminator.
  """
  config = run_folder.load_run_config(workdir)
  pretraining = make_pretraining(config)
  if not pretraining.has_discriminator:
    raise UserError(f"{workdir} has no discriminator to look through")
  mesh = sharding.make_mesh(**config.mesh)
  manifest = load_manifest(config.data.path)
  tokenizer = ConvBertTokenizer.from_pretrained(workdir)
  params, _ = run_folder.load_run_params(
    config, pretraining, mesh, workdir, None
  )
  batch = dict(
    next(
      loader.iter_eval_batches(
        config.data.path,
        batch_size=num_texts,
        max_seq_length=config.max_seq_length,
        vocab_size=config.model.vocab_size,
      )
    )
  )
  batch.pop("record_ids")

  @jax.jit
  def look(batch: Batch, key: jax.Array) -> Mapping[str, jax.Array]:
    selection = pretraining.select(
      key, batch, pretraining.objective.last_mask_rate, manifest.special_ids
    )
    _, parts = pretraining.losses(params, batch, selection, None)
    return {
      "ids": parts["corrupted_ids"],
      "probability": jax.nn.sigmoid(parts["replaced_logits"]),
    }

  seen = jax.device_get(look(batch, jax.random.key(seed)))
  texts = []
  for row in range(num_texts):
    real = np.flatnonzero(batch["attention_mask"][row])
    texts.append(
      [
        SeenToken(text, original, float(probability))
        for text, original, probability in zip(
          tokenizer.convert_ids_to_tokens(seen["ids"][row][real]),
          tokenizer.convert_ids_to_tokens(batch["input_ids"][row][real]),
          seen["probability"][row][real],
          strict=True,
        )
      ]
    )
  return texts


@dataclasses.dataclass(frozen=True)
class Inside:
  """Where a model looks in one text.

  Attributes:
    tokens: the `T` tokens of the text.
    attention_LxHxTxT: share of each token (last axis) in what each token reads.
    kernel_LxTxHxK: weights of the window around each token; H and K are 0 for a
      model without convolution.
  """

  tokens: list[str]
  attention_LxHxTxT: np.ndarray
  kernel_LxTxHxK: np.ndarray


def look_inside(source: Pretrained, text: str) -> Inside:
  """Returns attention maps and convolution kernels of a text.

  Args:
    source: an encoder with its tokenizer, as `Pretrained.encoder` is.
    text: no longer than the model's longest sequence.

  Raises:
    UserError: if it is longer, or the model has no vocabulary or unlike layers.
  """
  check_alike(source.model.config, "maps are drawn")
  tokenizer = source.needed_tokenizer()
  batch = tokenizer([text], return_tensors="np", verbose=False)
  apply = functools.partial(
    source.model.apply,
    output_attentions=True,
    output_conv_kernels=source.model.config.has_conv_kernels,
  )
  output = jax.device_get(jax.jit(apply)({"params": source.params}, **batch))
  attention = np.stack([layer[0] for layer in output.attentions])
  kernels = output.conv_kernels
  return Inside(
    tokenizer.convert_ids_to_tokens(batch["input_ids"][0]),
    attention,
    np.stack([layer[0] for layer in kernels])
    if kernels
    else np.zeros((len(attention), attention.shape[-1], 0, 0)),
  )
