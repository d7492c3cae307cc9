"""The one exception for mistakes that the user can mend."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
  """Input that cannot be used as given.

  The message is one line: what is wrong, where, and how to mend it. Programs
  in `experiments/` print it without a traceback and end with
  `exit_status`.
  """

  exit_status = 1


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> UserError:
  """Returns the error for a `name` that is none of the `valid` ones.

  Args:
    kind: what the name stands for, as in "size" or "config field".
    name: the name that was given.
    valid: every name that would have been accepted.

  Returns:
    A `UserError` that suggests the nearest valid names, or lists all of them
    where none comes near.
  """
  valid = sorted(valid)
  near = difflib.get_close_matches(name, valid, n=3, cutoff=0.5)
  if near:
    hint = "did you mean " + " or ".join(repr(n) for n in near) + "?"
  else:
    hint = "valid: " + ", ".join(valid)
  return UserError(f"unknown {kind} {name!r}; {hint}")
