"""Saving, keeping, and refusing to go on with another config."""

import errno
import json
import pathlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_training as toy

from convbert_jax.errors import UserError
from convbert_jax.training import (
  checkpoint,
  loop,
  reporting,
  restore,
  sharding,
)
from convbert_jax.training.checkpoint import CheckpointConfig
from convbert_jax.training.state import make_init


def steps_in(folder):
  names = [path.name for path in (folder / "checkpoints").iterdir()]
  return sorted(int(name) for name in names if name.isdigit())


def test_keeps_the_last_ones_and_every_so_many(tmp_path):
  toy.save_states(tmp_path, range(2, 15, 2), keep_last=2, keep_every=4)
  assert steps_in(tmp_path) == [4, 8, 12, 14]


def test_a_step_saved_already_is_left_alone(tmp_path):
  toy.save_states(tmp_path, [3])
  toy.save_states(tmp_path, [3])
  assert steps_in(tmp_path) == [3]


@pytest.mark.parametrize("keep", [{"keep_last": 0}, {"keep_every": -1}])
def test_refuses_to_keep_less_than_nothing(tmp_path, keep):
  with pytest.raises(UserError, match=f"checkpoint.{next(iter(keep))}="):
    CheckpointConfig(save_every=1, **keep)


def test_another_config_is_refused_wherever_it_is_met(tmp_path):
  config = toy.CONFIG | {"seed": 99}
  toy.save_states(tmp_path / "run", [5])
  with pytest.raises(UserError, match="seed: 0 -> 99"):
    toy.restored(tmp_path / "run", config)
  with pytest.raises(UserError, match="seed: 0 -> 99"):
    toy.restored(tmp_path / "new", config, resume_from=str(tmp_path / "run"))
  # Parameters alone may be taken from any run.
  toy.restored(tmp_path / "new", config, init_from=str(tmp_path / "run"))
  # A run that was killed before its first checkpoint has rows to lose.
  begun = tmp_path / "begun"
  begun.mkdir()
  (begun / "config.json").write_text(json.dumps(toy.CONFIG))
  with pytest.raises(UserError, match="seed: 0 -> 99"):
    toy.restored(begun, config)


def test_checksum_sees_every_leaf_and_bit():
  tree = {"a": jnp.ones((2, 3)), "b": jnp.zeros(4), "c": jnp.int32(1)}
  seen = {checkpoint.checksum(tree)}
  seen.add(checkpoint.checksum({**tree, "c": jnp.int32(2)}))
  seen.add(checkpoint.checksum({**tree, "b": tree["b"].at[3].set(1e-45)}))
  seen.add(checkpoint.checksum({**tree, "a": jnp.zeros((2, 3))}))
  assert len(seen) == 4
  spread = jax.device_put(
    tree["b"].reshape(4, 1), sharding.replicated(sharding.make_mesh())
  )
  alone = checkpoint.checksum(tree["b"].reshape(4, 1))
  assert checkpoint.checksum(spread) == alone


def test_a_full_disk_is_one_line_and_older_checkpoints_stay(
  tmp_path, monkeypatch
):
  toy.save_states(tmp_path, [10])
  write_text = type(checkpoint.epath.Path(tmp_path)).write_text

  def full(path, text, *arguments, **options):
    if "20" in str(path):
      raise OSError(errno.ENOSPC, "No space left on device")
    return write_text(path, text, *arguments, **options)

  monkeypatch.setattr(type(checkpoint.epath.Path(tmp_path)), "write_text", full)
  with pytest.raises(UserError, match=r"no room left to write in .*s;"):
    toy.save_states(tmp_path, [20])
  # The first failed write is reported while others go on in the background;
  # the disk must stay full until they too have failed.
  for thread in threading.enumerate():
    if thread.name == "async_save":
      thread.join(timeout=60)
      assert not thread.is_alive()
  monkeypatch.undo()
  found, _ = toy.restored(tmp_path)
  assert int(found.state.step) == 10
  # What was left half done is cleared away behind the next start, and the
  # next save waits for that.
  toy.save_states(tmp_path, [30])
  assert steps_in(tmp_path) == [10, 30]
  assert not list(pathlib.Path(tmp_path).rglob("*tmp*"))


def test_a_save_is_not_spoilt_by_the_steps_after_it(tmp_path):
  """The state is donated while the background thread still writes it."""
  wide = 1 << 18

  def init_params(key):
    return {"kernel": jax.random.normal(key, (wide,))}

  def step(state, batch, rng):
    del batch, rng
    one = jnp.float32(1)
    params = jax.tree.map(lambda param: param + 1, state.params)
    return state.replace(step=state.step + 1, params=params), {
      "loss": (one, one),
      "gradient_norm": (one, one),
    }

  mesh, key = toy.make_mesh(8), jax.random.key(0)
  init = make_init(init_params, toy.OPTIMIZER)
  options = CheckpointConfig(save_every=3, keep_last=50)
  with checkpoint.Checkpointer(tmp_path, {}, options) as checkpointer:
    state, _ = sharding.init_state(init, key, mesh)
    begin = np.array(state.params["kernel"])
    report = reporting.ReportConfig(tensorboard=False)
    with reporting.Reporter(
      tmp_path, report, start_step=0, num_steps=12, config={}
    ) as reporter:
      loop.train(
        state,
        loop.compile_step(step, state, mesh),
        toy.Batches(),
        mesh=mesh,
        rng=key,
        num_steps=12,
        periods=loop.Periods(report=0, evaluate=0, save=3),
        checkpointer=checkpointer,
        reporter=reporter,
      )
  like = sharding.abstract(init_params, key, mesh)
  for saved in (3, 6, 9, 12):
    params, _ = restore.restore_params(tmp_path, like, saved)
    wanted = begin
    for _ in range(saved):
      wanted = wanted + np.float32(1)
    np.testing.assert_array_equal(params["kernel"], wanted)
