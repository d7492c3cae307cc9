"""The tokenizer of published models: settings and files."""

import copy
import json
import pathlib

import huggingface_hub
import huggingface_hub.errors
import pytest
from tiny_tokenizer import SPECIAL, WORDS, make
from tokenizers import AddedToken

from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def test_golden_cases_up_to_the_word_limit():
  tokenizer = ConvBertTokenizer.from_pretrained(
    str(GOLDEN / "tokenizer_vocab.txt")
  )
  cases = json.loads((GOLDEN / "tokenizer.json").read_text())["cases"]
  compared = 0
  for case in cases:
    if any(token in case["text"] for token in SPECIAL):
      continue
    if any(len(word) > 50 for word in case["text"].split()):
      continue
    assert tokenizer.tokenize(case["text"]) == case["tokens"], case["text"]
    compared += 1
  assert compared > len(cases) // 2


def test_long_words_and_special_tokens_in_text():
  tokenizer = make([*SPECIAL, "x", "##x"])
  assert "[UNK]" not in tokenizer.tokenize("x" * 100)
  assert tokenizer.tokenize("x" * 101) == ["[UNK]"]
  assert make().tokenize("Hello [MASK]") == ["hello", "[MASK]"]


def test_every_setting_works():
  for text, settings, words, without, tokens in (
    ("Hello", {"do_lower_case": False}, [], ["hello"], ["[UNK]"]),
    ("B-52", {"never_split": ["B-52"]}, ["B-52"], None, ["B-52"]),
    (
      "東京",
      {"tokenize_chinese_chars": False},
      ["##京"],
      ["東", "京"],
      ["東", "##京"],
    ),
    ("é", {"strip_accents": False}, ["e"], ["e"], ["[UNK]"]),
    ("hello\x00", {"clean_text": False}, [], ["hello"], ["[UNK]"]),
    ("unaff", {"wordpieces_prefix": "@@"}, ["@@aff"], None, ["un", "@@aff"]),
  ):
    found = make([*WORDS, *words], **settings).tokenize(text)
    assert found == tokens, settings
    plain = make([*WORDS, *words]).tokenize(text)
    assert plain != tokens, settings
    if without is not None:
      assert plain == without, settings


SETTINGS = {
  "do_lower_case": False, "never_split": ["B-52"], "strip_accents": True,
  "wordpieces_prefix": "@@", "clean_text": False, "model_max_length": 64,
  "tokenize_chinese_chars": False, "mask_token": "<m>", "cls_token": "<s>",
  "additional_special_tokens": ["<e>"], "padding_side": "left",
  "truncation_side": "left", "split_special_tokens": False,
  "clean_up_tokenization_spaces": True, "do_basic_tokenize": True,
  "model_input_names": ["input_ids"], "bos_token": "hello",
}  # fmt: skip
FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json")


@pytest.mark.parametrize("kept", [FILES[::2], FILES[1:], FILES[1:2]])
def test_saved_and_read_again(tmp_path, kept):
  settings = dict(SETTINGS)
  if FILES[2] not in kept:
    del settings["never_split"]  # Only the third file has them as words.
  tokenizer = make([*WORDS, "B-52", "<m>", "<s>"], **settings)
  single = AddedToken("xyz", single_word=True, normalized=False)
  assert tokenizer.add_tokens(["new", single]) == 2
  written = tokenizer.save_pretrained(str(tmp_path))
  assert {pathlib.Path(path).name for path in written} == set(FILES)
  for name in set(FILES) - set(kept):
    (tmp_path / name).unlink()
  changes = {}
  if FILES[2] not in kept:
    with pytest.raises(UserError, match=r"which of hello, <m>, <e> is mask_to"):
      ConvBertTokenizer.from_pretrained(str(tmp_path))
    changes = {"mask_token": "<m>", "bos_token": "hello"}
  again = ConvBertTokenizer.from_pretrained(str(tmp_path), **changes)
  assert again.vocabulary == tokenizer.vocabulary
  assert again.vocab_size == len(WORDS) + 3 == len(tokenizer) - 3
  assert again.settings == tokenizer.settings
  assert again.special_tokens == tokenizer.special_tokens
  assert again.additional_special_tokens == ["<e>"]
  assert again.added_tokens_decoder == tokenizer.added_tokens_decoder
  assert again.model_max_length == (64 if FILES[2] in kept else 512)
  if FILES[2] in kept:
    for name, value in SETTINGS.items():
      assert getattr(again, name) == value, name
  text = "B-52 <e> Hello <m> unaff (B-52) wxyz xyz anew"
  assert again.encode(text) == tokenizer.encode(text)
  changes["do_lower_case"] = True
  lower = ConvBertTokenizer.from_pretrained(str(tmp_path), **changes)
  assert lower.settings["do_lower_case"]


def described(folder, edit):
  """Saves a tokenizer, and has its tokenizer.json edited and read alone."""
  make().save_pretrained(str(folder))
  path = folder / "tokenizer.json"
  edit(content := json.loads(path.read_text()))
  path.write_text(json.dumps(content))
  (folder / "vocab.txt").unlink()
  return ConvBertTokenizer.from_pretrained(str(folder))


def added(token, number, **options):
  flags = ("single_word", "lstrip", "rstrip", "normalized")
  options = {**dict.fromkeys(flags, False), "special": True, **options}
  return {"id": number, "content": token, **options}


def test_tokens_that_were_added_keep_their_ids(tmp_path):
  def edit(content):
    words = content["model"]["vocab"]
    del words["[MASK]"]  # It stands among the added tokens still.
    more = added("<e>", 13), added("B-52", 14, special=False, single_word=True)
    content["added_tokens"] += more

  tokenizer = described(tmp_path, edit)
  assert tokenizer.vocabulary == (*WORDS, "<e>", "B-52")
  assert tokenizer.vocab_size == len(WORDS)
  assert (tokenizer.mask_token, tokenizer.mask_token_id) == ("[MASK]", 4)
  ids = tokenizer.encode("[MASK] <e> B-52")
  assert ids == [2, 4, 13, 14, 3]
  assert tokenizer.decode(ids, skip_special_tokens=True) == "B-52"


def test_ids_without_a_token_are_refused(tmp_path):
  def edit(content):
    del content["model"]["vocab"]["hello"]

  with pytest.raises(UserError, match="none for id 8: later ids"):
    described(tmp_path, edit)


@pytest.mark.parametrize("limit", [None, 10**30])
def test_no_limit_of_length(tmp_path, limit):
  make().save_pretrained(str(tmp_path))
  path = tmp_path / "tokenizer_config.json"
  nothing = {"model_max_length": limit, "mask_token": None}
  path.write_text(json.dumps(json.loads(path.read_text()) | nothing))
  tokenizer = ConvBertTokenizer.from_pretrained(str(tmp_path))
  assert tokenizer.mask_token == "[MASK]"
  long = ["hello " * 600, "hello"]
  cut = tokenizer(long, truncation=True, verbose=False)["input_ids"][0]
  assert len(cut) == (602 if limit else 512)
  if limit:
    with pytest.raises(UserError, match=r"needs a length.*give max_length"):
      tokenizer(long, padding="max_length")
  out = tokenizer(long[1:], padding="max_length", max_length=700)
  assert len(out["input_ids"][0]) == 700


def test_special_tokens_by_their_newer_name(tmp_path):
  make().save_pretrained(tmp_path)
  path = tmp_path / "tokenizer_config.json"
  path.write_text(json.dumps({"extra_special_tokens": ["hello"]}))
  found = ConvBertTokenizer.from_pretrained(tmp_path)
  assert found.additional_special_tokens == ["hello"]
  assert make(extra_special_tokens=["hello"]).all_special_ids[-1] == 8
  changed = ConvBertTokenizer.from_pretrained(
    tmp_path, extra_special_tokens=["world"]
  )
  assert changed.extra_special_tokens == ["world"]


def test_copies_encode_alike():
  tokenizer = make(never_split=["B-52"])
  tokenizer.add_tokens(["new"])
  copied = copy.deepcopy(tokenizer)
  copied.add_tokens(["newer"])
  assert len(copied) == len(tokenizer) + 1
  assert copied.encode("hello new") == tokenizer.encode("hello new")


def test_bad_settings_are_one_clear_line(tmp_path):
  make().save_pretrained(str(tmp_path))
  words = r"cannot read .*tokenizer_config\.json"
  for content in ("[]", "{", '{"pad_token": {}}', '{"model_max_length": "x"}'):
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(UserError, match=words) as caught:
      ConvBertTokenizer.from_pretrained(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_name_of_the_hub_is_fetched(tmp_path, monkeypatch):
  make(do_lower_case=False).save_pretrained(tmp_path)
  error = huggingface_hub.errors.EntryNotFoundError

  def fetch(name, file):
    assert name == "someone/convbert"
    if not (tmp_path / file).exists():
      raise error.__new__(error, file)
    return str(tmp_path / file)

  monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
  for kept in (FILES, FILES[1:], FILES[1:2]):
    for name in set(FILES) - set(kept):
      (tmp_path / name).unlink(missing_ok=True)
    found = ConvBertTokenizer.from_pretrained("someone/convbert")
    assert found.vocabulary == tuple(WORDS)
    assert not found.do_lower_case
  (tmp_path / FILES[1]).unlink()
  with pytest.raises(UserError, match=r"hub did not give it .*vocab\.txt"):
    ConvBertTokenizer.from_pretrained("someone/convbert")


def test_paths_of_files(tmp_path):
  make().save_pretrained(tmp_path)
  for tokenizer in (
    ConvBertTokenizer(str(tmp_path / "vocab.txt")),
    ConvBertTokenizer(tmp_path / "vocab.txt"),
    ConvBertTokenizer(vocab_file=tmp_path / "vocab.txt"),
    ConvBertTokenizer(vocab=tmp_path / "vocab.txt"),
    ConvBertTokenizer(vocab={token: i for i, token in enumerate(WORDS)}),
    ConvBertTokenizer(tokenizer_file=tmp_path / "tokenizer.json"),
    ConvBertTokenizer.from_pretrained(tmp_path / "vocab.txt"),
  ):
    assert tokenizer.vocabulary == tuple(WORDS)
  (path,) = make().save_vocabulary(tmp_path, filename_prefix="my")
  assert pathlib.Path(path).name == "my-vocab.txt"
  # What a tokenizer.json says counts, but for settings that are given.
  make(do_lower_case=False, strip_accents=True).save_pretrained(tmp_path)
  cased = ConvBertTokenizer(tokenizer_file=tmp_path / "tokenizer.json")
  assert cased.tokenize("Hello héllo") == ["[UNK]", "hello"]
  both = ConvBertTokenizer(
    tmp_path / "my-vocab.txt", tmp_path / "tokenizer.json"
  )
  assert both.tokenize("Hello") == ["[UNK]"]
  kept = ConvBertTokenizer(
    tokenizer_file=tmp_path / "tokenizer.json", strip_accents=False
  )
  assert kept.tokenize("Hello héllo") == ["[UNK]", "[UNK]"]


def test_files_that_are_no_vocabularies(tmp_path):
  prose = "The quick brown fox.\nIt jumps over the lazy dog.\n"
  for name, content in (("empty.txt", ""), ("prose.txt", prose)):
    path = tmp_path / name
    path.write_text(content)
    words = rf"{name} has no token '\[UNK\]'"
    for read in (ConvBertTokenizer, ConvBertTokenizer.from_pretrained):
      with pytest.raises(UserError, match=words):
        read(path)
  (tmp_path / "vocab.txt").write_text(prose)
  with pytest.raises(UserError, match=rf"{tmp_path} has no token"):
    ConvBertTokenizer.from_pretrained(tmp_path)
  (tmp_path / "vocab.txt").write_text("<unk>\nhello\n")
  found = ConvBertTokenizer(tmp_path / "vocab.txt", unk_token="<unk>")
  assert found.tokenize("hello there") == ["hello", "<unk>"]
  with pytest.raises(UserError, match="the vocabulary has no token"):
    make(["hello"])


def test_folders_are_made(tmp_path):
  (path,) = make().save_vocabulary(tmp_path / "a" / "b")
  assert path == str(tmp_path / "a" / "b" / "vocab.txt")
  make().save_pretrained(tmp_path / "c" / "d")
  found = ConvBertTokenizer.from_pretrained(tmp_path / "c" / "d")
  assert found.vocabulary == tuple(WORDS)


def test_refusals(tmp_path):
  taken = tmp_path / "taken"
  taken.write_text("kept")
  for call, words in (
    (lambda: make(mask_tokn="[M]"), "setting 'mask_tokn'.*mask_token"),
    (lambda: make(never_split="B-52"), "never_split is one text"),
    (lambda: make(never_split=3), "never_split=3: give a list of words"),
    (lambda: make(do_lower_case="x"), "do_lower_case='x': give True or"),
    (lambda: make(strip_accents=1), "strip_accents=1: give True, False or"),
    (lambda: make(wordpieces_prefix=3), "wordpieces_prefix=3: give a text"),
    (lambda: make(model_max_length=0), "model_max_length=0: give a whole"),
    (lambda: make(extra_special_tokens="ab"), "tokens is one text"),
    (
      lambda: ConvBertTokenizer.from_pretrained(None),
      "the tokenizer's folder is None",
    ),
    (lambda: make().save_pretrained(""), "the tokenizer's folder is ''"),
    (lambda: make().save_vocabulary(""), "the vocabulary's folder is ''"),
    (lambda: make().save_pretrained(taken), "cannot be a folder"),
    (lambda: make().save_vocabulary(taken), "cannot be a folder"),
    (lambda: make(vocab=WORDS), "vocab_file and vocab are the same"),
    (lambda: make(use_fast=True), "use_fast is an option of transformers"),
    (lambda: make(padding_side="rigth"), "padding_side 'rigth'.*right"),
    (lambda: make(cls_token=None), "cls_token=None: a ConvBERT needs one"),
    (lambda: make({"a": 0, "b": 2}), "2 tokens has none for id 1"),
    (lambda: make(None), r"no vocabulary: give the path of a vocab\.txt"),
    (
      lambda: make(added_tokens_decoder={9: {"content": "new"}}),
      "'new' has the id 9 in one file and 13",
    ),
    (
      lambda: ConvBertTokenizer.from_pretrained(str(tmp_path)),
      r"vocab\.txt or tokenizer\.json",
    ),
  ):
    with pytest.raises(UserError, match=words) as caught:
      call()
    assert "\n" not in str(caught.value)
  with pytest.raises(AttributeError, match="no attribute 'maskid'"):
    make().maskid  # noqa: B018
