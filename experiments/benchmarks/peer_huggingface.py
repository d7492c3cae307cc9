"""The same work in PyTorch, with transformers' ConvBERT.

Started by `experiments.benchmarks.peers`:

  python -m experiments.benchmarks.peer_huggingface FOLDER MODE VARIANT

with the mode "train" or "inference" and the variant "eager" or "compiled".

Transformers lacks the discriminator's head and ELECTRA's step, so that they are
written here. They draw and compute no more than ours: logits at the masked
positions alone, one random number for each sampled token.
"""

import contextlib
import sys
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from torch.nn import functional

from convbert_jax import host_memory
from convbert_jax.model import common_fields
from convbert_jax.model.config import ConvBertConfig
from convbert_jax.model.generator import generator_config
from experiments.benchmarks import machine, peer_worker

# Fields of our config that transformers' lacks.
_OURS_ALONE = {
  "conv_kernel_init",
  "conv_layers",
  "conv_query",
  "conv_type",
  "head_size_rule",
  "mask_padding_in_conv",
  "position_type",
  "dtype",
  "remat",
  "scan_unroll",
  "kernels",
}
_MASK_TOKEN_RATE = 0.85
_COUNT_EPSILON = 1e-6


class Electra(nn.Module):
  """Generator, discriminator and their joint loss, computed as ours is.

  Args:
    workload: config and special ids.
  """

  def __init__(self, workload: peer_worker.Workload) -> None:
    super().__init__()
    self.objective = workload.config["objective"]
    self.special_ids = workload.special_ids
    self.num_predictions = workload.num_predictions
    tied = self.objective["tie_embeddings"]
    ours = ConvBertConfig(**workload.config["model"])
    small = generator_config(
      ours, **workload.config["generator"], tie_embeddings=tied
    )
    self.discriminator = transformers.ConvBertModel(_their_config(ours))
    self.dense = nn.Linear(ours.hidden_size, ours.hidden_size)
    self.dense_1 = nn.Linear(ours.hidden_size, 1)
    self.generator = transformers.ConvBertForMaskedLM(_their_config(small))
    if tied:
      self.generator.convbert.embeddings = self.discriminator.embeddings
      words = self.discriminator.embeddings.word_embeddings.weight
      self.generator.generator_lm_head.weight = words
    self.generator_heads = (
      (
        self.generator.convbert.encoder.layer[0].attention.self
      ).attention_head_size,
      small.head_size,
    )

  def forward(
    self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor
  ) -> torch.Tensor:
    """Returns the weighted loss of a batch [B, T]."""
    positions, weights = self._select(ids, mask)
    tokens = ids.gather(1, positions)
    coins = torch.rand(positions.shape, device=ids.device) < _MASK_TOKEN_RATE
    hidden = torch.where(
      coins & (weights > 0), self.special_ids["mask"], tokens
    )
    masked = ids.scatter(1, positions, hidden)
    logits = self._token_logits(masked, mask, types, positions)
    losses = functional.cross_entropy(
      logits.flatten(0, 1), tokens.flatten(), reduction="none"
    )
    weighted = losses * weights.flatten()
    generator_loss = weighted.sum() / (weights.sum() + _COUNT_EPSILON)
    sampled = sample(logits.detach() / self.objective["temperature"])
    corrupted = ids.scatter(
      1, positions, torch.where(weights > 0, sampled, tokens)
    )
    discriminator_loss = self._replaced_loss(corrupted, ids, mask, types)
    return (
      self.objective["generator_weight"] * generator_loss
      + self.objective["discriminator_weight"] * discriminator_loss
    )

  def _select(
    self, ids: torch.Tensor, mask: torch.Tensor
  ) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns distinct positions to predict, and their weights, [B, P]."""
    candidates = mask > 0
    for name in ("cls", "sep", "mask"):
      candidates &= ids != self.special_ids[name]
    scores = torch.rand(ids.shape, device=ids.device)
    scores = scores.masked_fill(~candidates, -1.0)
    positions = scores.topk(self.num_predictions, dim=1).indices
    wanted = (mask.sum(1) * self.objective["mask_rate"]).round()
    wanted = wanted.clamp(1, self.num_predictions)
    wanted = torch.minimum(wanted, candidates.sum(1))
    slots = torch.arange(self.num_predictions, device=ids.device)
    used = slots[None, :] < wanted[:, None]
    return positions, used.float()

  def _token_logits(
    self,
    ids: torch.Tensor,
    mask: torch.Tensor,
    types: torch.Tensor,
    positions: torch.Tensor,
  ) -> torch.Tensor:
    """Returns the generator's float32 logits [B, P, V]."""
    hidden = self.generator.convbert(ids, mask, types).last_hidden_state
    index = positions[:, :, None].expand(-1, -1, hidden.shape[-1])
    features = self.generator.generator_predictions(hidden.gather(1, index))
    return self.generator.generator_lm_head(features).float()

  def _replaced_loss(
    self,
    corrupted: torch.Tensor,
    ids: torch.Tensor,
    mask: torch.Tensor,
    types: torch.Tensor,
  ) -> torch.Tensor:
    hidden = self.discriminator(corrupted, mask, types).last_hidden_state
    logits = self.dense_1(functional.gelu(self.dense(hidden)))[..., 0].float()
    losses = functional.binary_cross_entropy_with_logits(
      logits, (corrupted != ids).float(), reduction="none"
    )
    return (losses * mask).sum() / (mask.sum() + _COUNT_EPSILON)


def sample(logits: torch.Tensor) -> torch.Tensor:
  """Draws from softmax(logits) over the last axis.

  By inverting the cumulative distribution: on a CPU about nine times faster
  than torch.multinomial, four times faster than Gumbel noise.
  """
  ends = torch.softmax(logits, -1).cumsum(-1)
  places = torch.rand(*logits.shape[:-1], 1, device=logits.device)
  found = torch.searchsorted(ends, places * ends[..., -1:])[..., 0]
  return found.clamp(max=logits.shape[-1] - 1)


def make_optimizer(
  model: nn.Module, config: dict[str, Any], num_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
  """Returns the fused AdamW, and the linear schedule with its warmup."""
  decayed, spared = [], []
  for name, parameter in model.named_parameters():
    is_spared = "LayerNorm" in name or "bias" in name
    (spared if is_spared else decayed).append(parameter)
  optimizer = torch.optim.AdamW(
    [
      {"params": decayed, "weight_decay": config["weight_decay_rate"]},
      {"params": spared, "weight_decay": 0.0},
    ],
    lr=config["learning_rate"],
    betas=(config["beta1"], config["beta2"]),
    eps=config["epsilon"],
    fused=True,
  )
  warmup_steps = config["warmup_steps"] or config["warmup_rate"] * num_steps

  def rate(step: int) -> float:
    warmup = min(1.0, step / warmup_steps) if warmup_steps else 1.0
    return warmup * (1 - step / num_steps)

  return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, rate)


def prepare_training(
  workload: peer_worker.Workload, device: torch.device, *, compiled: bool
) -> peer_worker.Work:
  """Builds the networks and the step."""
  model = Electra(workload).to(device).train()
  optimizer, schedule = make_optimizer(
    model, workload.config["optimizer"], workload.config["num_steps"]
  )
  loss_of = torch.compile(model) if compiled else model
  batch = _batch(workload, device)
  parameters = list(model.parameters())
  clip_norm = workload.config["optimizer"]["clip_norm"]

  def step() -> None:
    with _precision(workload, device):
      loss = loss_of(*batch)
    loss.backward()
    if clip_norm:
      nn.utils.clip_grad_norm_(parameters, clip_norm)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad(set_to_none=True)

  theirs, ours = model.generator_heads
  differs = []
  if theirs != ours:
    differs.append(
      f"the generator's heads are {theirs} wide in transformers and {ours}"
      " here, so transformers computes less; --config.model.head_size_rule=hf"
      " makes them equal"
    )
  return _work(step, model, device, differs)


def prepare_inference(
  workload: peer_worker.Workload, device: torch.device, *, variant: str
) -> peer_worker.Work:
  """Reads the encoder, and saves its output on the batch."""
  model = transformers.ConvBertModel.from_pretrained(workload.weights_folder)
  model = model.to(device).eval()
  host_memory.return_freed()
  encode = torch.compile(model) if variant == "compiled" else model
  batch = _batch(workload, device)

  def call() -> torch.Tensor:
    with torch.inference_mode(), _precision(workload, device):
      return encode(*batch).last_hidden_state

  np.save(
    workload.output_path(f"transformers {variant}"),
    call().float().cpu().numpy(),
  )
  return _work(call, model, device, [])


def _work(
  call: Any, model: nn.Module, device: torch.device, differs: list[str]
) -> peer_worker.Work:
  on_gpu = device.type == "cuda"
  return peer_worker.Work(
    call=call,
    wait=torch.cuda.synchronize if on_gpu else lambda: None,
    peak_bytes=torch.cuda.max_memory_allocated if on_gpu else lambda: None,
    about={
      "platform": "gpu" if on_gpu else "cpu",
      "parameters": sum(p.numel() for p in model.parameters()),
      "differs": differs,
    },
  )


def _their_config(config: ConvBertConfig) -> transformers.ConvBertConfig:
  # Special ids and heads have no part in the speed of a step.
  left_out = {*_OURS_ALONE, *common_fields.NAMES}
  fields = vars(config).items()
  return transformers.ConvBertConfig(
    **{name: value for name, value in fields if name not in left_out}
  )


def _batch(
  workload: peer_worker.Workload, device: torch.device
) -> tuple[torch.Tensor, ...]:
  batch = workload.batch()
  return tuple(
    torch.from_numpy(batch[name]).long().to(device)
    for name in ("input_ids", "attention_mask", "token_type_ids")
  )


def _precision(
  workload: peer_worker.Workload, device: torch.device
) -> contextlib.AbstractContextManager[Any]:
  half = workload.config["model"]["dtype"] == "bfloat16"
  return torch.autocast(device.type, torch.bfloat16, enabled=half)


def _device(workload: peer_worker.Workload) -> torch.device:
  """Returns the device, set up for speed."""
  torch.manual_seed(0)
  if workload.platform == "gpu" and torch.cuda.is_available():
    # As JAX does by default: float32 products in TensorFloat32.
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda")
  torch.set_num_threads(machine.num_cores())
  return torch.device("cpu")


def main(folder: str, mode: str, variant: str) -> None:
  """Prepares one kind of work and answers until stdin ends."""
  host_memory.keep_freed()
  workload = peer_worker.read_workload(folder)
  transformers.logging.set_verbosity_error()
  device = _device(workload)
  if mode == "train":
    peer_worker.serve(
      lambda: prepare_training(workload, device, compiled=variant == "compiled")
    )
  else:
    peer_worker.serve(
      lambda: prepare_inference(workload, device, variant=variant)
    )


if __name__ == "__main__":
  main(*sys.argv[1:])
