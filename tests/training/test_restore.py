"""Where a run begins, and what it refuses to begin from."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_training as toy

from convbert_jax.errors import UserError
from convbert_jax.training import checkpoint, restore, sharding


def test_priority_is_own_then_other_run_then_parameters_then_scratch(tmp_path):
  own, other = tmp_path / "own", tmp_path / "other"
  saved = toy.save_states(other, [30, 40])
  kernel = np.asarray(saved.params["dense"]["kernel"])

  def kernel_of(found):
    return np.asarray(found.state.params["dense"]["kernel"])

  found, index = toy.restored(own)
  assert (found.source, int(found.state.step), index) == ("scratch", 0, 0)
  assert found.gathered == {}
  assert (kernel_of(found) != kernel).any()

  found, index = toy.restored(own, init_from=str(other))
  assert found.source == f"parameters of checkpoint 40 of {other}"
  assert (int(found.state.step), index, found.gathered) == (0, 0, {})
  np.testing.assert_array_equal(kernel_of(found), kernel)

  sources = {"resume_from": str(other), "init_from": str(other)}
  found, index = toy.restored(own, **sources)
  assert found.source == f"checkpoint 40 of {other}"
  assert (int(found.state.step), index) == (40, 40)
  assert found.gathered["window"] == {"loss": [0.1, 3.0]}

  found, _ = toy.restored(own, resume_from=f"{other}/checkpoints/30")
  assert int(found.state.step) == 30

  toy.save_states(own, [5])
  found, index = toy.restored(own, **sources)
  assert found.source == f"checkpoint 5 of {own}"
  assert (int(found.state.step), index) == (5, 5)


@pytest.mark.parametrize("name", ["resume_from", "init_from"])
def test_a_source_without_checkpoints_is_named(tmp_path, name):
  with pytest.raises(UserError, match=f"{name}=.*nowhere: no checkpoint"):
    toy.restored(tmp_path, **{name: str(tmp_path / "nowhere")})


def test_restores_parameters_alone_at_a_step(tmp_path):
  saved = toy.save_states(tmp_path, [10, 20])
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
  toy.save_states(tmp_path, [10])

  def wider(key):
    params = toy.init_params(key)
    return {"dense": {**params["dense"], "bias": jnp.zeros(5)}, "extra": key}

  with pytest.raises(UserError) as caught:
    toy.restored(tmp_path, init_params=wider)
  message = str(caught.value)
  assert "dense/bias: (4,) there, (5,) here" in message
  assert "extra: absent there, () here" in message
  assert "damaged" not in message


def tear(folder, pattern):
  """Cuts a file of a checkpoint in half; returns its path and content."""
  (path,) = folder.glob(pattern)
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  return path, whole


def flip(folder, pattern):
  """Changes a bit in the middle of a file of a checkpoint."""
  (path,) = folder.glob(pattern)
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


DAMAGES = {
  "torn parameters": lambda folder: tear(folder, "params/d/*"),
  "torn optimizer": lambda folder: tear(folder, "optimizer/d/*"),
  "torn position": lambda folder: tear(folder, "run/metadata"),
  "changed bit": lambda folder: flip(folder, "params/d/*"),
  "lost parameters": lambda folder: shutil.rmtree(folder / "params" / "d"),
  "torn shapes": lambda folder: tear(folder, "params/_METADATA"),
  "lost shapes": lambda folder: (folder / "params" / "_METADATA").unlink(),
  "no optimizer": lambda folder: shutil.rmtree(folder / "optimizer"),
}


def test_a_damaged_checkpoint_is_put_aside(tmp_path, capsys):
  toy.save_states(tmp_path, [10, 20])
  newest = tmp_path / "checkpoints" / "20"
  for number, damage in enumerate(DAMAGES.values()):
    damage(newest)
    found, index = toy.restored(tmp_path)
    assert (int(found.state.step), index) == (10, 10)
    said = capsys.readouterr().err
    aside = tmp_path / "damaged" / ("20" + f"_{number}" * (number > 0))
    assert said.startswith(f"warning: checkpoint {newest} is damaged: ")
    assert said.endswith(
      f"; it is kept as {aside}, and the run goes on from step 10\n"
    )
    assert said.count("\n") == 1
    # In words, and none of the libraries'.
    assert not re.search("OCDBT|zarr|[A-Z]+_[A-Z]+:|0x|column", said)
    assert list(aside.iterdir()) and not newest.exists()
    toy.save_states(tmp_path, [20])


def test_a_person_is_asked_where_no_checkpoint_is_whole(tmp_path):
  toy.save_states(tmp_path, [10, 20])
  for step in (10, 20):
    tear(tmp_path / "checkpoints" / str(step), "params/d/*")
  with pytest.raises(UserError, match=r"10 is damaged.*start in another") as e:
    toy.restored(tmp_path)
  assert "\n" not in str(e.value)
  assert (tmp_path / "checkpoints" / "10").exists()


def test_another_run_s_damaged_checkpoint_is_left_where_it_is(tmp_path):
  toy.save_states(tmp_path / "other", [10, 20])
  newest = tmp_path / "other" / "checkpoints" / "20"
  tear(newest, "params/d/*")
  for name in ("resume_from", "init_from"):
    with pytest.raises(
      UserError, match=r"damaged.*move that folder away .* step 10"
    ):
      toy.restored(tmp_path / "own", **{name: str(tmp_path / "other")})
  assert newest.exists()


def test_a_changed_number_is_found(tmp_path, monkeypatch):
  toy.save_states(tmp_path, [10])
  monkeypatch.setattr(checkpoint, "checksum", lambda tree: 1)
  with pytest.raises(UserError, match="params is not what was saved"):
    toy.restored(tmp_path)


def test_the_position_of_an_earlier_version_is_read(tmp_path):
  toy.save_states(tmp_path, [10])
  newest = tmp_path / "checkpoints" / "10"
  run = newest / "run" / "metadata"
  fields = json.loads(run.read_text())
  position = fields.pop("position")
  run.write_text(json.dumps(fields))
  with pytest.raises(UserError, match="is damaged: loader cannot be read"):
    toy.restored(tmp_path)
  (newest / "loader").mkdir()
  for process in range(2):
    path = newest / "loader" / f"process_{process}_of_2.json"
    path.write_text(json.dumps(position))
  _, index = toy.restored(tmp_path)
  assert {"index": index} == position
