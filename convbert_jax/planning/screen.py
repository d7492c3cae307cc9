"""A forecast as one screen of text."""

from collections.abc import Iterator

from convbert_jax.planning.preflight import Forecast

_WIDTH = 18


def screen(found: Forecast) -> str:
  """Returns a forecast's lines, the verdict last."""
  return "\n".join(_lines(found))


def _lines(found: Forecast) -> Iterator[str]:
  device = found.target.device
  yield (
    f"{found.target}: {found.target.count:,} x {device.title}; compiled in"
    f" {found.compile_seconds:.0f} s. A prediction: nothing has run there."
  )
  yield ""
  mesh = " x ".join(f"{name} {size}" for name, size in found.mesh.items())
  yield _row("mesh", mesh)
  yield _row(
    "step",
    f"{found.tokens:,} tokens, {found.num_params / 1e6:.1f} M parameters",
  )
  parts = " + ".join(
    f"{name} {_giga(size)}" for name, size in found.memory.items()
  )
  yield _row(
    "memory",
    f"{_giga(found.memory_used)} of {_giga(device.memory)} GB: {parts}",
  )
  yield _row(
    "matrix products",
    f"{found.model_flops / 1e12:.3g} TFLOP that the model needs,"
    f" {found.program_flops / 1e12:.3g} in the program",
  )
  yield _row(
    "memory traffic",
    f"{_giga(found.num_bytes)} GB in {found.num_kernels:,} kernels; of it",
  )
  for layer, num_bytes in found.sources.items():
    share = num_bytes / found.num_bytes
    yield f"{num_bytes / 1e9:{_WIDTH}.2f} GB {share:4.0%}  {layer}"
  yield from _exchange_rows(found)
  yield ""
  yield from _time_rows(found)


def _exchange_rows(found: Forecast) -> Iterator[str]:
  for kind, exchange in found.exchanges.items():
    # "all-reduce between slices" is longer than the column.
    name, _, between = kind.partition(" ")
    yield _row(
      name,
      f"{exchange.inside / 1e6:,.1f} MB in loops,"
      f" {exchange.outside / 1e6:,.1f} MB outside; {_milli(exchange.seconds)}"
      f" {between}".rstrip(),
    )
  if not found.exchanges:
    yield _row("exchanges", "none")


def _time_rows(found: Forecast) -> Iterator[str]:
  yield _row(
    "step time",
    f"{_milli(found.step_seconds)}: kernels {_milli(found.kernel_seconds)} and"
    f" exchanges {_milli(found.exchange_seconds)}, none hidden;"
    f" {_milli(found.hidden_step_seconds)} if all are",
  )
  if found.estimated_seconds is not None:
    yield _row(
      "by its compiler",
      f"{_milli(found.estimated_seconds)} of kernels, and"
      f" {found.estimated_share_of_rate:.2f} of the matrix rate",
    )
  yield _row(
    "speed",
    f"{found.tokens_per_second:,.0f} tokens/s,"
    f" {found.share_of_rate:.2f} of the matrix rate",
  )
  yield _row(
    "whole run",
    f"{found.num_steps:,} steps: {_duration(found.days)},"
    f" {found.device_hours:,.1f} device-hours",
  )
  if found.fits:
    yield _row("verdict", "fits")
  else:
    tried = ", ".join([*found.mends, "more devices"])
    yield _row("verdict", f"does not fit; try {tried}")


def _row(name: str, text: str) -> str:
  return f"{name:<{_WIDTH}} {text}"


def _giga(num_bytes: float) -> str:
  return f"{num_bytes / 1e9:,.3g}"


def _milli(seconds: float) -> str:
  return f"{seconds * 1e3:,.3g} ms"


def _duration(days: float) -> str:
  if days >= 1:
    return f"{days:,.1f} days"
  hours = 24 * days
  return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"
