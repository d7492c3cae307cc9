"""README and docs: Python runs, commands parse, links lead somewhere."""

import pathlib
import re
import runpy
import shlex
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest
from absl import flags

from convbert_jax import ConvBertConfig, ConvBertForMaskedLM, ConvBertTokenizer
from convbert_jax.formats import huggingface
from convbert_jax.formats.pretrained import Pretrained
from experiments import command_line

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
# `expression.shape  # (1, 2)` is a promise.
SHAPE = re.compile(r"^(.+?\.shape)\b.*?  # (\([\d, ]+\)).*$", re.MULTILINE)
COMMAND = re.compile(r"python -m (experiments\.[\w.]+)(.*)")
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
# A path of two parts or more in code marks; those of runs are not ours.
PATH = re.compile(r"`((?:[\w.]+/)+(?:\w+\.(?:py|svg|md))?)`")


def blocks(page, *languages):
  found = BLOCK.findall(page.read_text())
  return [text for language, text in found if language in languages]


def page_ids(page):
  return page.name


@pytest.fixture
def folder(tmp_path, monkeypatch):
  """A model folder named "folder", in the folder that the code runs in."""
  monkeypatch.chdir(tmp_path)
  words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "text", "another"]
  config = ConvBertConfig(
    vocab_size=30522,
    embedding_size=8,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=32,
    head_size_rule="hf",
  )
  model = ConvBertForMaskedLM(config)
  params = model.init(jax.random.key(0), np.zeros((1, 4), np.int32))["params"]
  params = jax.device_get(nn.unbox(params))
  huggingface.write_folder(
    "folder", Pretrained(model, params, ConvBertTokenizer(words))
  )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*these start new:UserWarning")
@pytest.mark.parametrize(
  "page", [page for page in PAGES if blocks(page, "python")], ids=page_ids
)
def test_the_python_runs(page, folder):
  names = {}
  for block in blocks(page, "python"):
    checked, count = SHAPE.subn(r"assert str(\1) == '\2'", block)
    exec(compile(checked, str(page), "exec"), names)
    names["promises"] = names.get("promises", 0) + count
  assert names["promises"] == (14 if page.name == "library.md" else 0)


@pytest.fixture
def parse(monkeypatch):
  """Parses a command as its program does, without running it."""
  monkeypatch.chdir(ROOT)
  # Other tests may have imported programs, and absl takes each name once.
  known = {
    name
    for module, defined in flags.FLAGS.flags_by_module_dict().items()
    if module.startswith("absl")
    for flag in defined
    for name in (flag.name, flag.short_name)
  }
  others = {name: flags.FLAGS[name] for name in set(flags.FLAGS) - known}
  for name in others:
    delattr(flags.FLAGS, name)

  def forget():
    flags.FLAGS.unparse_flags()
    for name in set(flags.FLAGS) - known:
      delattr(flags.FLAGS, name)

  def parse(program, arguments):
    argv = [program, *arguments]
    monkeypatch.setattr(sys, "argv", argv)

    def run(main):
      command_line._checked_parse(argv)
      if "config" in flags.FLAGS:
        config_flag = main.__globals__["_CONFIG"]
        assert isinstance(config_flag, command_line.ConfigFlag)
        assert config_flag.value

    monkeypatch.setattr(command_line, "run", run)
    try:
      path = ROOT / (program.replace(".", "/") + ".py")
      runpy.run_path(str(path), run_name="__main__")
    finally:
      forget()

  yield parse
  for name, flag in others.items():
    flags.FLAGS[name] = flag


def commands(page):
  for block in blocks(page, "sh"):
    for program, rest in COMMAND.findall(block.replace("\\\n", " ")):
      yield program, shlex.split(rest, comments=True)


def test_the_commands_parse(parse):
  count = 0
  for page in PAGES:
    for program, arguments in commands(page):
      parse(program, [part.rstrip(";") for part in arguments])
      count += 1
  assert count >= 30


def test_a_wrong_command_would_be_found(parse):
  for arguments in (
    ["--workdr=w"],
    ["--workdir=w", "--config.num_trials=3"],
    ["--workdir=w", "--config=configs/pretrain.py"],
  ):
    with pytest.raises(ValueError, match=r"num_seeds|workdir|another program"):
      parse("experiments.finetune", arguments)


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_links_and_paths_lead_to_files(page):
  text = page.read_text()
  for link in LINK.findall(text):
    assert link.startswith("http") or (page.parent / link).exists(), link
  for path in PATH.findall(text):
    first = path.partition("/")[0]
    if (ROOT / first).exists() or (ROOT / "convbert_jax" / first).exists():
      places = (ROOT / path, ROOT / "convbert_jax" / path)
      assert any(place.exists() for place in places), path


def test_the_tree_of_the_readme_has_every_folder():
  text = PAGES[0].read_text()
  for folder in (*ROOT.glob("convbert_jax/*/"), *ROOT.glob("experiments/*/")):
    if (folder / "__init__.py").exists():
      assert f"{folder.name}/" in text, folder
