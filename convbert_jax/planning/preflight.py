"""What a run will need and how fast it should be, from its compiled step."""

import collections
import dataclasses
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from convbert_jax import files
from convbert_jax.errors import UserError, is_out_of_memory
from convbert_jax.planning import (
  collectives,
  kernels,
  layer_names,
  program_text,
  roofline,
  step_program,
  topologies,
)
from convbert_jax.planning.devices import Target

_NUM_SOURCES = 10
_SECONDS_A_DAY = 86_400
# What a TPU's compiler says of its main memory, when it has tried and before.
_USED = re.compile(
  r"(?:memory space hbm\. Used |required for HLO temporaries \()"
  r"(?P<used>[\d.]+)(?P<unit>[KMGT])\b"
)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Exchange:
  """All exchanges of a kind in a step.

  Attributes:
    inside: bytes of whole arrays in loops, the scan over layers.
    outside: bytes of the others.
    seconds: if nothing else is done meanwhile.
  """

  inside: int
  outside: int
  seconds: float


@dataclasses.dataclass(frozen=True)
class Forecast:
  """A step on devices that it never ran on; figures are of one device.

  Attributes:
    target: the devices.
    mesh: sizes of its axes.
    num_params: trained, of the whole model.
    memory: bytes by what takes them.
    model_flops: matrix operations that the model needs.
    program_flops: those that the program does; more if it recomputes.
    num_bytes: read and written in the device's memory.
    num_kernels: launches.
    sources: bytes by layer, the largest first.
    exchanges: with other devices, by kind.
    kernel_seconds: of all kernels, one after the other.
    estimated_seconds: of kernels as the compiler estimates them, or None.
    tokens: of a step, on all devices.
    num_steps: of the whole run.
    compile_seconds: here.
    mends: settings that make it need less memory, if it does not fit.
  """

  target: Target
  mesh: Mapping[str, int]
  num_params: int
  memory: Mapping[str, int]
  model_flops: float
  program_flops: float
  num_bytes: int
  num_kernels: int
  sources: Mapping[str, int]
  exchanges: Mapping[str, Exchange]
  kernel_seconds: float
  estimated_seconds: float | None
  tokens: int
  num_steps: int
  compile_seconds: float
  mends: Sequence[str] = ()

  @property
  def memory_used(self) -> int:
    """Bytes in all."""
    return sum(self.memory.values())

  @property
  def fits(self) -> bool:
    """Whether the device's memory holds it.

    A TPU's compiler refuses what does not fit.
    """
    device = self.target.device
    return device.platform == "tpu" or self.memory_used <= device.memory

  @property
  def exchange_seconds(self) -> float:
    """Seconds of all exchanges, none of them hidden behind kernels."""
    return sum(exchange.seconds for exchange in self.exchanges.values())

  @property
  def step_seconds(self) -> float:
    """Seconds of a step if no exchange is hidden behind kernels."""
    return self.kernel_seconds + self.exchange_seconds

  @property
  def hidden_step_seconds(self) -> float:
    """Seconds of a step if every exchange is hidden behind kernels."""
    return max(self.kernel_seconds, self.exchange_seconds)

  @property
  def tokens_per_second(self) -> float:
    """Tokens a second, on all devices."""
    return self.tokens / self.step_seconds

  @property
  def share_of_rate(self) -> float:
    """The model's operations by what the device could do in that time."""
    return self._share_of_rate(self.step_seconds)

  @property
  def estimated_share_of_rate(self) -> float | None:
    """The same with kernels as the compiler estimates them."""
    if self.estimated_seconds is None:
      return None
    return self._share_of_rate(self.estimated_seconds + self.exchange_seconds)

  def _share_of_rate(self, seconds: float) -> float:
    rate = max(self.target.device.matrix_rates.values())
    return self.model_flops / rate / seconds

  @property
  def days(self) -> float:
    """Days of the whole run's steps."""
    return self.num_steps * self.step_seconds / _SECONDS_A_DAY

  @property
  def device_hours(self) -> float:
    """Hours of all devices for the whole run's steps."""
    return self.days * 24 * self.target.count


class DoesNotFit(UserError):
  """The compiler found no way to hold the step in a device's memory."""


def forecast(
  config: ConfigDict,
  target: Target,
  tell: Callable[[str], None],
  init_from: str = "",
  save_hlo: str | None = None,
) -> Forecast:
  """Compiles the step of a config for devices and reads what it does.

  Args:
    config: of pre-training or fine-tuning.
    target: the devices, for which `topologies.prepare` was called.
    tell: is called with a line before the minutes of compiling.
    init_from: the model that a fine-tuning starts from; "" for none.
    save_hlo: file to keep the program's text in.

  Raises:
    DoesNotFit: if the compiler ran out of the device's memory.
    UserError: if the config is not valid or does not suit the devices, or the
      compiled program cannot be read.
  """
  devices = topologies.devices_of(target)
  step = step_program.make_step(config, devices, init_from)
  mesh = dict(step.program.mesh.shape)
  state = step.params_bytes + step.optimizer_bytes
  tell(f"compiling the step for {target} ...")
  start = time.perf_counter()
  try:
    compiled = step.compile()
  except jax.errors.JaxRuntimeError as error:
    if not is_out_of_memory(error):
      raise
    raise _does_not_fit(str(error), config, mesh, target, state) from error
  seconds = time.perf_counter() - start
  text = compiled.as_text()
  if save_hlo:
    files.write_text(save_hlo, text)
  try:
    launched, found = _read(text, target)
  except ValueError as error:
    raise UserError(
      f"the compiled program cannot be read ({error}); --save_hlo=FILE keeps it"
    ) from error
  answer = Forecast(
    target=target,
    mesh=mesh,
    num_params=step.num_params,
    memory=_memory(step, compiled),
    model_flops=step.flops_per_token * step.tokens / target.count,
    program_flops=sum(kernel.total_flops for kernel in launched),
    num_bytes=sum(kernel.total_bytes for kernel in launched),
    num_kernels=sum(kernel.times for kernel in launched),
    sources=_sources(launched),
    exchanges=_exchanges(found, target),
    kernel_seconds=sum(
      kernel.times * roofline.kernel_seconds(kernel, target.device)
      for kernel in launched
    ),
    estimated_seconds=roofline.estimated_seconds(launched, target.device),
    tokens=step.tokens,
    num_steps=step.num_steps,
    compile_seconds=seconds,
  )
  if not answer.fits:
    tried = mends(config, mesh, target, answer.memory_used, state)
    answer = dataclasses.replace(answer, mends=tried)
  return answer


def largest_batch(
  config: ConfigDict,
  target: Target,
  tell: Callable[[str], None],
  init_from: str = "",
) -> Forecast:
  """Returns the forecast of the largest batch that fits, to a sixteenth.

  Args:
    config: its batch size is where the search begins.
    target: the devices, for which `topologies.prepare` was called.
    tell: is called with a line on each batch that was tried.
    init_from: the model that a fine-tuning starts from; "" for none.

  Raises:
    UserError: if no batch fits, or for another reason of `forecast`.
  """
  unit = step_program.batch_unit(config, topologies.devices_of(target))
  tried: dict[int, Forecast | None] = {}

  def fits(units: int) -> bool:
    if units not in tried:
      sized = config.copy_and_resolve_references()
      sized.batch_size = units * unit
      try:
        found = forecast(sized, target, lambda _: None, init_from)
      except DoesNotFit:
        found = None
      tried[units] = found if found and found.fits else None
      used = f"{found.memory_used / 1e9:.1f} GB" if found else "too much"
      tell(f"batch_size={sized.batch_size}: {used}")
    return tried[units] is not None

  most = max(config.batch_size // unit, 1)
  while not fits(most):
    if most == 1:
      raise UserError(
        f"not even batch_size={unit}, a row for each device, fits; try"
        " --config.mesh.fsdp, --config.model.remat=full or more devices"
      )
    most //= 2
  least_too_many = 2 * most
  while fits(least_too_many):
    most, least_too_many = least_too_many, 2 * least_too_many
  while least_too_many - most > max(most // 16, 1):
    middle = (most + least_too_many) // 2
    if fits(middle):
      most = middle
    else:
      least_too_many = middle
  return tried[most]


def as_dict(found: Forecast) -> dict[str, Any]:
  """Returns a forecast's values, derived ones too, for a JSON file."""
  values = dataclasses.asdict(found)
  values["target"] = str(found.target)
  for name in (
    "memory_used",
    "fits",
    "exchange_seconds",
    "step_seconds",
    "hidden_step_seconds",
    "tokens_per_second",
    "share_of_rate",
    "estimated_share_of_rate",
    "days",
    "device_hours",
  ):
    values[name] = getattr(found, name)
  return values


def mends(
  config: ConfigDict,
  mesh: Mapping[str, int],
  target: Target,
  used: float,
  state: float,
) -> list[str]:
  """Returns settings of which each makes a step need less memory.

  Args:
    config: of the step.
    mesh: sizes of its axes.
    target: the devices.
    used: bytes that it needs on one device.
    state: those of parameters and optimizer, which no batch changes.
  """
  room = target.device.memory
  found = []
  if state > room / 2 and (fsdp := _larger_fsdp(mesh, target, state)):
    found.append(f"--config.mesh.data=-1 --config.mesh.fsdp={fsdp}")
  if config.model.remat != "full":
    found.append("--config.model.remat=full")
  if state >= room:
    return found
  less = 2
  while state + (used - state) / less > room:
    less *= 2
  accumulates = "accumulation_steps" in config
  parts = less * (config.accumulation_steps if accumulates else 1)
  if config.batch_size % (mesh["data"] * mesh["fsdp"] * parts) == 0:
    if accumulates:
      found.append(f"--config.accumulation_steps={parts}")
    found.append(f"--config.batch_size={config.batch_size // less}")
  return found


def _larger_fsdp(
  mesh: Mapping[str, int], target: Target, state: float
) -> int | None:
  """Returns an `fsdp` by which parameters take half of the memory at most."""
  fsdp, rest = mesh["fsdp"], target.count // mesh["tensor"]
  for larger in range(fsdp + 1, target.near // mesh["tensor"] + 1):
    is_enough = state * fsdp / larger <= target.device.memory / 2
    if is_enough and rest % larger == 0:
      return larger
  return None


def _read(
  text: str, target: Target
) -> tuple[list[kernels.Kernel], list[collectives.Collective]]:
  program = program_text.parse(text)
  is_tpu = target.device.platform == "tpu"
  return kernels.kernels(program, is_tpu), collectives.collectives(program)


def _memory(
  step: step_program.Step, compiled: jax.stages.Compiled
) -> dict[str, int]:
  found = compiled.memory_analysis()
  # What a step takes, plus what it returns elsewhere than where it took it. The
  # program itself is not among the arrays that a device has room for.
  given = found.argument_size_in_bytes
  returned = found.output_size_in_bytes - found.alias_size_in_bytes
  return {
    "parameters": step.params_bytes,
    "optimizer": step.optimizer_bytes,
    "temporaries": found.temp_size_in_bytes,
    "batch and rest": given
    + returned
    - step.params_bytes
    - step.optimizer_bytes,
  }


def _sources(launched: Sequence[kernels.Kernel]) -> dict[str, int]:
  sizes: collections.Counter[str] = collections.Counter()
  for kernel in launched:
    sizes[layer_names.layer_name(kernel.source)] += kernel.total_bytes
  return dict(sizes.most_common(_NUM_SOURCES))


def _exchanges(
  found: Sequence[collectives.Collective], target: Target
) -> dict[str, Exchange]:
  exchanges = {}
  for kind in sorted({each.kind for each in found}):
    of_kind = [each for each in found if each.kind == kind]
    exchanges[kind] = Exchange(
      sum(each.total_bytes for each in of_kind if each.times > 1),
      sum(each.total_bytes for each in of_kind if each.times == 1),
      sum(
        each.times * roofline.exchange_seconds(each, target) for each in of_kind
      ),
    )
  return exchanges


def _does_not_fit(
  text: str,
  config: ConfigDict,
  mesh: Mapping[str, int],
  target: Target,
  state: float,
) -> DoesNotFit:
  device = target.device
  found = _USED.search(text)
  if found:
    used = float(found["used"]) * _UNITS[found["unit"]]
    says = f"needs {used / 1e9:.1f} GB on each device"
  else:
    used, says = state + 2 * device.memory, "does not fit"
  tried = ", ".join(mends(config, mesh, target, used, state))
  return DoesNotFit(
    f"the step {says}, and a {device.title} has {device.memory / 1e9:.1f} GB"
    f" for arrays; try {tried or 'a smaller model'}, or more devices"
  )
