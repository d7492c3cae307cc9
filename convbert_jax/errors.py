"""The one exception for mistakes that the user can mend; exit statuses."""

import difflib
import signal
from collections.abc import Iterable

# The exit status where memory ran out; docs/scaling.md has all of them.
OUT_OF_MEMORY = 82


class UserError(ValueError):
  """Input that cannot be used as given.

  The message is one line: what is wrong, where, and how to mend it. Programs
  in `experiments/` print it without a traceback and end with
  `exit_status`.
  """

  exit_status = 1


def exit_status_of(error: BaseException) -> int:
  """Returns the status that a program which ends with `error` has."""
  if isinstance(error, UserError):
    return error.exit_status
  if isinstance(error, SystemExit):
    return error.code if isinstance(error.code, int) else 1
  if isinstance(error, KeyboardInterrupt):
    return 128 + signal.SIGINT
  return OUT_OF_MEMORY if is_out_of_memory(error) else 1


def is_out_of_memory(error: BaseException) -> bool:
  """Says whether the host, or XLA for a device, had no memory left."""
  # JAX's own error is a RuntimeError; importing it would slow `--help` down.
  return isinstance(error, MemoryError) or (
    type(error).__name__ == "JaxRuntimeError"
    and str(error).startswith("RESOURCE_EXHAUSTED")
  )


# Options of transformers' `from_pretrained`.
_OF_LOADING = (
  "attn_implementation",
  "cache_dir",
  "config",
  "device_map",
  "force_download",
  "local_files_only",
  "low_cpu_mem_usage",
  "output_loading_info",
  "proxies",
  "quantization_config",
  "revision",
  "subfolder",
  "token",
  "torch_dtype",
  "trust_remote_code",
  "use_fast",
  "use_safetensors",
  "variant",
)


def near_names(name: str, valid: Iterable[str], *, cutoff: float) -> list[str]:
  """Returns up to three names that are near to one, the nearest first.

  Args:
    name: any text.
    valid: the names to look at.
    cutoff: how near, from 0 to 1 for equal ones.
  """
  return difflib.get_close_matches(name, sorted(valid), n=3, cutoff=cutoff)


def unknown_option(kind: str, name: str, valid: Iterable[str]) -> UserError:
  """Returns the same for options of loading.

  Those of transformers that mean nothing here are said to be so.
  """
  if name in _OF_LOADING:
    return UserError(
      f"{name} is an option of transformers without a meaning here: leave it"
      " out"
    )
  return unknown_name(kind, name, valid)


def unknown_name(kind: str, name: object, valid: Iterable[str]) -> UserError:
  """Returns the error for a `name` that is none of the `valid` ones.

  Args:
    kind: what the name stands for, as in "size" or "config field".
    name: what was given for it, of whatever kind.
    valid: every name that would have been accepted.

  Returns:
    A `UserError` that suggests the nearest valid names, or lists all of them
    where none comes near.
  """
  valid = sorted(valid)
  near = near_names(str(name), valid, cutoff=0.5)
  if near:
    hint = "did you mean " + " or ".join(repr(n) for n in near) + "?"
  else:
    hint = "valid: " + ", ".join(valid)
  return UserError(f"unknown {kind} {name!r}; {hint}")
