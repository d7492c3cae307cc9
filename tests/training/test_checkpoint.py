"""Saving, keeping, restoring and refusing."""

import errno
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_training as toy

from convbert_jax.errors import UserError
from convbert_jax.training import checkpoint, restore, sharding


def steps_in(folder):
  names = [path.name for path in (folder / "checkpoints").iterdir()]
  return sorted(int(name) for name in names if name.isdigit())


def save_states(folder, steps, config=toy.CONFIG, **keep):
  """Saves the initial state under some steps, as quick as can be."""
  init = toy.state.make_init(toy.init_params, toy.OPTIMIZER)
  mesh = toy.make_mesh(1)
  state, _ = sharding.init_state(init, jax.random.key(1), mesh)
  with checkpoint.Checkpointer(folder, config, **keep) as checkpointer:
    for step in steps:
      state = state.replace(step=jnp.full_like(state.step, step))
      checkpointer.save(state, step, {"index": step}, {"loss": [0.1, 3.0]})
  return state


def restored(folder, config=toy.CONFIG, init_params=toy.init_params, **sources):
  batches = toy.Batches()
  with checkpoint.Checkpointer(folder, config) as checkpointer:
    found = restore.restore_or_init(
      checkpointer,
      toy.state.make_init(init_params, toy.OPTIMIZER),
      jax.random.key(0),
      toy.make_mesh(1),
      batches,
      **sources,
    )
  return found, batches.index


def test_keeps_the_last_ones_and_every_so_many(tmp_path):
  save_states(tmp_path, range(2, 15, 2), keep_last=2, keep_every=4)
  assert steps_in(tmp_path) == [4, 8, 12, 14]


def test_a_step_saved_already_is_left_alone(tmp_path):
  save_states(tmp_path, [3])
  save_states(tmp_path, [3])
  assert steps_in(tmp_path) == [3]


@pytest.mark.parametrize("keep", [{"keep_last": 0}, {"keep_every": -1}])
def test_refuses_to_keep_less_than_nothing(tmp_path, keep):
  with pytest.raises(UserError, match=f"checkpoint.{next(iter(keep))}="):
    checkpoint.Checkpointer(tmp_path, {}, **keep)


def test_priority_is_own_then_other_run_then_parameters_then_scratch(tmp_path):
  own, other = tmp_path / "own", tmp_path / "other"
  saved = save_states(other, [30, 40])
  kernel = np.asarray(saved.params["dense"]["kernel"])

  def kernel_of(found):
    return np.asarray(found.state.params["dense"]["kernel"])

  found, index = restored(own)
  assert (found.source, int(found.state.step), index) == ("scratch", 0, 0)
  assert found.window == {}
  assert (kernel_of(found) != kernel).any()

  found, index = restored(own, init_from=str(other))
  assert found.source == f"parameters of checkpoint 40 of {other}"
  assert (int(found.state.step), index, found.window) == (0, 0, {})
  np.testing.assert_array_equal(kernel_of(found), kernel)

  sources = {"resume_from": str(other), "init_from": str(other)}
  found, index = restored(own, **sources)
  assert found.source == f"checkpoint 40 of {other}"
  assert (int(found.state.step), index) == (40, 40)
  assert found.window == {"loss": [0.1, 3.0]}

  found, _ = restored(own, resume_from=f"{other}/checkpoints/30")
  assert int(found.state.step) == 30

  save_states(own, [5])
  found, index = restored(own, **sources)
  assert found.source == f"checkpoint 5 of {own}"
  assert (int(found.state.step), index) == (5, 5)


@pytest.mark.parametrize("name", ["resume_from", "init_from"])
def test_a_source_without_checkpoints_is_named(tmp_path, name):
  with pytest.raises(UserError, match=f"{name}=.*nowhere: no checkpoint"):
    restored(tmp_path, **{name: str(tmp_path / "nowhere")})


def test_restores_parameters_alone_at_a_step(tmp_path):
  saved = save_states(tmp_path, [10, 20])
  like = sharding.abstract(toy.init_params, jax.random.key(0), toy.make_mesh(8))
  params, step = restore.restore_params(str(tmp_path), like, 10)
  assert step == 10
  np.testing.assert_array_equal(
    params["dense"]["kernel"], saved.params["dense"]["kernel"]
  )
  assert restore.restore_params(str(tmp_path), like)[1] == 20
  with pytest.raises(UserError, match=r"no checkpoint 7 .*found: 10, 20"):
    restore.restore_params(str(tmp_path), like, 7)


def test_other_shapes_are_listed(tmp_path):
  save_states(tmp_path, [10])

  def wider(key):
    params = toy.init_params(key)
    return {"dense": {**params["dense"], "bias": jnp.zeros(5)}, "extra": key}

  with pytest.raises(UserError) as caught:
    restored(tmp_path, init_params=wider)
  message = str(caught.value)
  assert "dense/bias: (4,) there, (5,) here" in message
  assert "extra: absent there, () here" in message
  assert "damaged" not in message


def change(config, field, value):
  *path, name = field.split(".")
  copy = json.loads(json.dumps(config))
  inner = copy
  for part in path:
    inner = inner[part]
  inner[name] = value
  return copy


FULL = {
  "num_steps": 20,
  "data": {"path": "a", "prefetch": 2},
  "checkpoint": {"keep_last": 3},
  "eval": {"every": 5},
  "evaluation": 1,
  "report": {"every": 4},
}


@pytest.mark.parametrize(
  "field", ["data.prefetch", "checkpoint.keep_last", "eval.every"]
)
def test_fields_that_may_change(field):
  checkpoint.check_resumable(FULL, change(FULL, field, 99), "runs/a")


@pytest.mark.parametrize("field", ["num_steps", "data.path", "evaluation"])
def test_fields_that_may_not_change(field):
  with pytest.raises(UserError) as caught:
    checkpoint.check_resumable(FULL, change(FULL, field, 99), "runs/a")
  assert "\n" not in str(caught.value)
  assert "runs/a" in str(caught.value)
  old = FULL["data"]["path"] if "." in field else FULL[field]
  assert f"({field}: {old} -> 99)" in str(caught.value)


def test_new_and_lost_fields_are_differences_and_tuples_are_lists():
  with pytest.raises(UserError, match=r"a: 1 -> \(absent\); b: \(absent\)"):
    checkpoint.check_resumable({"a": 1}, {"b": 2}, "runs/a")
  checkpoint.check_resumable({"a": [1, 2]}, {"a": (1, 2)}, "runs/a")


def test_another_config_is_refused_wherever_it_is_met(tmp_path):
  config = change(toy.CONFIG, "num_steps", 99)
  save_states(tmp_path / "run", [5])
  with pytest.raises(UserError, match="num_steps: 20 -> 99"):
    restored(tmp_path / "run", config)
  with pytest.raises(UserError, match="num_steps: 20 -> 99"):
    restored(tmp_path / "new", config, resume_from=str(tmp_path / "run"))
  # Parameters alone may be taken from any run.
  restored(tmp_path / "new", config, init_from=str(tmp_path / "run"))
  # A run that was killed before its first checkpoint has rows to lose.
  begun = tmp_path / "begun"
  begun.mkdir()
  (begun / "config.json").write_text(json.dumps(toy.CONFIG))
  with pytest.raises(UserError, match="num_steps: 20 -> 99"):
    restored(begun, config)


def test_damage_is_named_with_the_way_on(tmp_path):
  save_states(tmp_path, [10, 20])
  newest = tmp_path / "checkpoints" / "20"
  files = ("params/d/*", "optimizer/d/*", "loader/*.json", "run/metadata")
  for pattern in files:
    (path,) = newest.glob(pattern)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError) as caught:
      restored(tmp_path)
    assert f"checkpoint {newest} is damaged" in str(caught.value)
    assert "to go on from step 10" in str(caught.value)
    assert "\n" not in str(caught.value)
    path.write_bytes(whole)
  restored(tmp_path)
  newest.rename(tmp_path / "aside")
  found, _ = restored(tmp_path)
  assert int(found.state.step) == 10


def test_a_changed_number_is_found(tmp_path, monkeypatch):
  save_states(tmp_path, [10])
  monkeypatch.setattr(checkpoint, "checksum", lambda tree: 1)
  with pytest.raises(UserError, match="params is not what was saved"):
    restored(tmp_path)


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


def test_another_number_of_processes_is_refused(tmp_path):
  save_states(tmp_path, [10])
  folder = tmp_path / "checkpoints" / "10" / "loader"
  (folder / "process_1_of_2.json").write_text("{}")
  with pytest.raises(UserError, match="saved by 2 processes, but there are 1"):
    restored(tmp_path)


def test_a_full_disk_is_one_line_and_older_checkpoints_stay(
  tmp_path, monkeypatch
):
  save_states(tmp_path, [10])
  write_text = type(checkpoint.epath.Path(tmp_path)).write_text

  def full(path, text, *arguments, **options):
    if "20" in str(path):
      raise OSError(errno.ENOSPC, "No space left on device")
    return write_text(path, text, *arguments, **options)

  monkeypatch.setattr(type(checkpoint.epath.Path(tmp_path)), "write_text", full)
  with pytest.raises(UserError, match=r"no room left to write in .*s;"):
    save_states(tmp_path, [20])
  monkeypatch.undo()
  found, _ = restored(tmp_path)
  assert int(found.state.step) == 10
  assert not list(pathlib.Path(tmp_path).rglob("*tmp*"))
