"""What a benchmark measures, how it varies, and how it is shown."""

import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from convbert_jax import files

# What a benchmark says of its flag --json.
JSON_HELP = "FILE to write the same values to."


class Measurement(NamedTuple):
  """A value and its unit; for a median, the quartiles as well."""

  value: float
  unit: str = ""
  low: float | None = None
  high: float | None = None

  def __str__(self) -> str:
    if self.low is None or self.high is None:
      return f"{_number(self.value, 4)} {self.unit}".rstrip()
    value, low, high = (
      _number(number, 3) for number in (self.value, self.low, self.high)
    )
    return f"{value} {self.unit}".rstrip() + f" ({low} to {high})"

  def as_dict(self) -> dict[str, float | str]:
    """Returns the fields that are known, by name."""
    return {k: v for k, v in self._asdict().items() if v is not None}


Measurements = dict[str, Measurement]


def _number(value: float, digits: int) -> str:
  # Rounded to three digits, 999.5 would be written 1e+03.
  return f"{value:.0f}" if abs(value) >= 999.5 else f"{value:.{digits}g}"


def median(values: Sequence[float], unit: str = "") -> Measurement:
  """Returns the median and the quartiles of two values or more."""
  low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
  return Measurement(middle, unit, low, high)


def report(
  measurements: Mapping[str, Measurement], json_path: str | None
) -> None:
  """Prints one measurement a line, and writes them to a file if one is named.

  Args:
    measurements: by name; a line is `name: value unit (low to high)`.
    json_path: the file; its folder is made if need be.

  Raises:
    UserError: if the file cannot be written.
  """
  for name, found in measurements.items():
    print(f"{name}: {found}")
  if json_path:
    path = pathlib.Path(json_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(
      path, {name: found.as_dict() for name, found in measurements.items()}
    )
