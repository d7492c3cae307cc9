"""What `fit` does around the loop."""

import jax
import toy_training as toy

from convbert_jax import host_memory
from convbert_jax.training import loop

COMPILED = "/jax/core/compile/backend_compile_duration"


def test_what_compiling_and_the_first_step_took_is_given_back(
  tmp_path, monkeypatch
):
  events, compile_step = [], loop.compile_step

  def recording_compile(*arguments):
    compiled = compile_step(*arguments)

    def step(state, batch, rng):
      events.append("step")
      result = compiled(state, batch, rng)
      events.append("stepped")
      return result

    step.lower = compiled.lower
    return step

  def listen(event, seconds, **tags):
    if event == COMPILED and "step" in tags.get("fun_name", ""):
      events.append("compiled")

  monkeypatch.setattr(loop, "compile_step", recording_compile)
  monkeypatch.setattr(
    host_memory, "return_freed", lambda: events.append("returned")
  )
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    toy.run(tmp_path, num_steps=2, save_every=0, eval_every=0, report_every=1)
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  # The first step takes what was compiled ahead. Its end is seen when the next
  # has begun.
  begin = events.index("returned")
  assert events[begin:] == ["returned", *["step", "stepped"] * 2, "returned"]
  assert events[:begin] == ["compiled"]
