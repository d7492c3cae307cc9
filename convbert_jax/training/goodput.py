"""Where the time of a run went, over all its starts."""

import dataclasses
from collections.abc import Mapping, Sequence

from convbert_jax.training.events import Event
from convbert_jax.training.reporting import time_text

# Kinds of time, that which a run is for first.
KINDS = (
  "steps",
  "data wait",
  "compile",
  "evaluation",
  "save",
  "restart",
  "lost work",
  "other",
)


@dataclasses.dataclass(frozen=True)
class Start:
  """A start of a run, to its end or to the last that is known of it.

  Attributes:
    first_step: the step that it went on from.
    last_step: the last that is known to have ended.
    seconds: by `KINDS`.
    status: its exit status; None if it was killed, or still runs.
  """

  first_step: int
  last_step: int
  seconds: Mapping[str, float]
  status: int | None


def starts(events: Sequence[Event]) -> list[Start]:
  """Returns what each start of a run did with its time.

  Args:
    events: as `read_events` returns them.
  """
  groups: list[list[Event]] = []
  for event in events:
    if event["event"] == "start":
      groups.append([])
    if groups:
      groups[-1].append(event)
  next_steps = [group[0]["step"] for group in groups[1:]]
  return [
    _start(group, next_step)
    for group, next_step in zip(groups, [*next_steps, None], strict=True)
  ]


def _start(events: Sequence[Event], next_step: int | None) -> Start:
  first, last = events[0], events[-1]
  known = dict.fromkeys(KINDS, 0.0)
  for event in events:
    known |= event.get("totals", {})
  known["restart"] = first["seconds"]
  last_step = max(event.get("step", 0) for event in events)
  done = last_step - first["step"]
  if done and next_step is not None and next_step < last_step:
    # It may go on from before this start, if a checkpoint was damaged.
    share = min(1.0, (last_step - next_step) / done)
    lost = share * (known["steps"] + known["data wait"])
    known["steps"] *= 1 - share
    known["data wait"] *= 1 - share
    known["lost work"] = lost
  whole = last["time"] - first["time"] + first["seconds"]
  known["other"] = max(0.0, whole - sum(known.values()))
  return Start(first["step"], last_step, known, last.get("status"))


def total(found: Sequence[Start]) -> dict[str, float]:
  """Returns the seconds of all starts together, by `KINDS`."""
  return {kind: sum(start.seconds[kind] for start in found) for kind in KINDS}


def summary(found: Sequence[Start]) -> str:
  """Returns one line: the share of time in steps, and where the rest went."""
  seconds = total(found)
  whole = sum(seconds.values()) or 1.0
  rest = ", ".join(
    f"{kind} {seconds[kind] / whole:.1%}"
    for kind in KINDS[1:]
    if seconds[kind] / whole >= 0.0005
  )
  times = f" over {len(found)} starts" if len(found) > 1 else ""
  return (
    f"goodput {seconds['steps'] / whole:.1%} of {time_text(whole)}{times}"
    f"{f' ({rest})' if rest else ''}"
  )


def ending(start: Start) -> str:
  """Returns how a start ended, in words."""
  if start.status is None:
    return "killed or still running"
  return "done" if start.status == 0 else f"status {start.status}"
