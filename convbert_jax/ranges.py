"""What numbers the numeric fields of configs may be: one table for each group.

The configs of a run are checked whole before anything is read or written, and
the dataclasses that they fill check their own group, for whoever makes one
without a config.
"""

import dataclasses
import numbers
from collections.abc import Mapping
from typing import Any

from convbert_jax.errors import UserError

# JAX and Grain seed with 32 bits; more would be cut, or refused late.
MOST_SEED = 2**32 - 1
# More take a machine down before they help.
_MOST_THREADS = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
  """Which numbers a field may be.

  Attributes:
    whole: whether only whole numbers.
    least: the smallest, if there is one.
    above: numbers must be larger, if given.
    most: the largest, if there is one.
    below: numbers must be smaller, if given.
    meaning: of special values, for people.
  """

  whole: bool = False
  least: float | None = None
  above: float | None = None
  most: float | None = None
  below: float | None = None
  meaning: str = ""

  def refusal(self, value: Any) -> str | None:
    """Returns what a value must be, None if it is.

    NaN lies in no range.
    """
    kind = numbers.Integral if self.whole else numbers.Real
    if not isinstance(value, kind) or isinstance(value, bool):
      return "must be a whole number" if self.whole else "must be a number"
    bounds = (
      ("at least", self.least, lambda bound: value >= bound),
      ("above", self.above, lambda bound: value > bound),
      ("at most", self.most, lambda bound: value <= bound),
      ("below", self.below, lambda bound: value < bound),
    )
    given = [one for one in bounds if one[1] is not None]
    if all(is_kept(bound) for _, bound, is_kept in given):
      return None
    words = " and ".join(f"{said} {bound}" for said, bound, _ in given)
    return f"must be {words}" + (self.meaning and f"; {self.meaning}")


def _whole(least: int, meaning: str = "", *, most: int | None = None) -> Range:
  return Range(whole=True, least=least, most=most, meaning=meaning)


_AT_LEAST_0 = Range(least=0)
_ABOVE_0 = Range(above=0)
_COUNT = _whole(1)
_STEPS = _whole(0, "0 is for the last step alone")
_DECAY = Range(least=0, below=1)
_DROPOUT = Range(least=0, below=1, meaning="0 switches dropout off")
_DEVICES = _whole(-1, "-1 takes all devices that are left")
_SECONDS = _whole(1)
_THREADS = _whole(0, most=_MOST_THREADS)

# Group of a config -> field -> range; "" has the fields outside groups. Fields
# that only one of the configs has stand here as well.
RANGES: dict[str, dict[str, Range]] = {
  "": {
    "seed": _whole(0, most=MOST_SEED),
    "num_seeds": _COUNT,
    "num_steps": _COUNT,
    "num_train_epochs": Range(least=0, meaning="0 evaluates alone"),
    "batch_size": _COUNT,
    "accumulation_steps": _COUNT,
    "max_seq_length": _COUNT,
    "max_answer_length": _COUNT,
    "max_skipped_steps": _whole(0, "0 stops at the first that is not finite"),
  },
  "model": {
    "vocab_size": _COUNT,
    "embedding_size": _COUNT,
    "hidden_size": _COUNT,
    "num_hidden_layers": _COUNT,
    "num_attention_heads": _COUNT,
    "intermediate_size": _COUNT,
    "head_ratio": _COUNT,
    "conv_kernel_size": _COUNT,
    "num_groups": _COUNT,
    "max_position_embeddings": _COUNT,
    "type_vocab_size": _COUNT,
    "hidden_dropout_prob": _DROPOUT,
    "attention_probs_dropout_prob": _DROPOUT,
    "initializer_range": _AT_LEAST_0,
    "layer_norm_eps": _AT_LEAST_0,
    "scan_unroll": _COUNT,
  },
  "generator": {
    "size_fraction": Range(above=0, most=1),
    "layers_fraction": _ABOVE_0,  # A generator may be the deeper one.
  },
  "objective": {
    "mask_rate": Range(above=0, below=1, meaning="0.15 is usual"),
    "final_mask_rate": Range(least=0, below=1, meaning="0 is mask_rate"),
    "generator_weight": _AT_LEAST_0,
    "discriminator_weight": _AT_LEAST_0,
    "temperature": _ABOVE_0,
  },
  "optimizer": {
    # 0 is a way to look at a run that learns nothing.
    "learning_rate": _AT_LEAST_0,
    "warmup_steps": _whole(0),
    "warmup_rate": Range(least=0, most=1),
    "decay_power": _AT_LEAST_0,
    "weight_decay_rate": _AT_LEAST_0,
    "beta1": _DECAY,
    "beta2": _DECAY,
    # Where a gradient has always been 0, the update is 0 / epsilon.
    "epsilon": _ABOVE_0,
    "clip_norm": Range(least=0, meaning="0 does not clip"),
    "update_clip": Range(least=0, meaning="0 does not clip"),
    "momentum": _DECAY,
    "layer_decay": Range(above=0, most=1, meaning="1 is the same for all"),
  },
  "data": {
    "num_threads": _THREADS,
    "prefetch": _whole(0),
    "num_workers": _THREADS,
    "max_train_examples": _whole(0, "0 takes all"),
    "min_length": _COUNT,
    "pool": _COUNT,
    "packing": _whole(0, "0 is a text a row"),
  },
  "eval": {
    "every": _whole(-1, "0 and -1 are special, the config says how"),
    "batch_size": _COUNT,
    "max_batches": _whole(0, "0 takes the whole held-out split"),
    "mask_rate": Range(
      least=0, below=1, meaning="0 is the rate that training ends with"
    ),
  },
  "checkpoint": {
    "save_every": _STEPS,
    "keep_last": _COUNT,
    "keep_every": _whole(0, "0 keeps none beside the last"),
    "local_every": _whole(0, "0 is never"),
  },
  "report": {
    "every": _STEPS,
    "profile_start": _whole(0, "0 is never"),
    "profile_stop": _whole(0, "0 is never"),
    "stall_timeout": _whole(0, "in seconds, 0 for no limit"),
  },
  "mesh": {"data": _DEVICES, "fsdp": _DEVICES, "tensor": _DEVICES},
  "distributed": {
    "initialization_timeout": _SECONDS,
    "heartbeat_timeout": _SECONDS,
    "shutdown_timeout": _SECONDS,
  },
}


def check(
  group: str, values: Mapping[str, Any], *, prefix: str | None = None
) -> None:
  """Refuses numbers out of range.

  Args:
    group: of a config; "" for the fields outside groups.
    values: of its fields by name, some or all. Those without a range are left
      to others.
    prefix: of a field's name in the message; by default the group's.

  Raises:
    UserError: naming the field, its value and what it must be.
  """
  for name, allowed in RANGES[group].items():
    if name not in values:
      continue
    refusal = allowed.refusal(values[name])
    if refusal is not None:
      if prefix is None:
        prefix = f"{group}." if group else ""
      raise UserError(f"{prefix}{name}={values[name]} {refusal}")


def check_config(config: Mapping[str, Any]) -> None:
  """Refuses a run's config with a number out of range.

  Args:
    config: nested, plain values. A fine-tuning that takes its architecture from
      the model to start from has `named_sizes`, and its group `model` is not
      filled yet.

  Raises:
    UserError: as `check`.
  """
  is_open = "named_sizes" in config
  for group in RANGES:
    if not group:
      check(group, config)
    elif group in config and not (is_open and group == "model"):
      check(group, config[group])
