"""The tokenizer of published models: options, pairs, padding, files."""

import json
import pathlib

import numpy as np
import pytest

from convbert_jax.data.convbert_tokenizer import ConvBertTokenizer
from convbert_jax.errors import UserError

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "un", "##aff", "##able", "hello", "world", ",", "東", "京"]


def make(words=WORDS, **settings):
  return ConvBertTokenizer(words, **settings)


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


def test_a_pair_has_two_segments_and_special_tokens_around():
  out = make()("hello", "unaffable world", return_special_tokens_mask=True)
  tokens = make().convert_ids_to_tokens(out["input_ids"])
  assert tokens == [
    "[CLS]", "hello", "[SEP]", "un", "##aff", "##able", "world", "[SEP]"
  ]  # fmt: skip
  assert out["token_type_ids"].tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
  assert out["special_tokens_mask"].tolist() == [1, 0, 1, 0, 0, 0, 0, 1]


def test_padding_and_truncation():
  tokenizer = make()
  texts = ["hello", "unaffable world"]
  ragged = tokenizer(texts)["input_ids"]
  assert [len(row) for row in ragged] == [3, 6]
  padded = tokenizer(texts, padding=True, pad_to_multiple_of=4)
  assert padded["input_ids"].shape == (2, 8)
  assert padded["input_ids"].dtype == np.int32
  assert padded["attention_mask"].sum(1).tolist() == [3, 6]
  options = {"padding": "max_length", "truncation": True, "max_length": 4}
  cut = tokenizer(texts, **options)
  assert cut["input_ids"].shape == (2, 4)
  assert (cut["input_ids"][1, [0, -1]] == [2, 3]).all()
  first = tokenizer(
    "hello hello hello", "world", truncation="only_first", max_length=5
  )
  assert tokenizer.convert_ids_to_tokens(first["input_ids"]) == [
    "[CLS]", "hello", "[SEP]", "world", "[SEP]"
  ]  # fmt: skip
  assert len(tokenizer("hello hello")["input_ids"]) == 4  # nothing sticks
  tokenizer(texts, **options)
  assert tokenizer.tokenize("hello") == ["hello"]
  tokenizer(texts, **options)
  assert len(tokenizer.encode("hello hello hello hello")) == 6


def test_offsets_point_into_the_text():
  text = "Hello, unaffable"
  out = make()(text, return_offsets_mapping=True)
  pieces = [text[a:b] for a, b in out["offset_mapping"]]
  assert pieces == ["", "Hello", ",", "un", "aff", "able", ""]


def test_decoding_joins_pieces():
  tokenizer = make()
  ids = tokenizer.encode("Hello, unaffable [MASK]")
  assert tokenizer.decode(ids, skip_special_tokens=True) == "hello, unaffable"
  assert tokenizer.batch_decode([ids])[0].startswith("[CLS] hello, unaff")
  assert tokenizer.mask_token_id == 4 and tokenizer.cls_token == "[CLS]"
  assert tokenizer.convert_tokens_to_ids(["world", "nowhere"]) == [9, 1]


SETTINGS = {
  "do_lower_case": False, "never_split": ["B-52"], "strip_accents": True,
  "wordpieces_prefix": "@@", "clean_text": False, "model_max_length": 64,
  "tokenize_chinese_chars": False, "mask_token": "<m>", "cls_token": "<s>",
  "additional_special_tokens": ["<e>"],
}  # fmt: skip
FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json")


@pytest.mark.parametrize("kept", [FILES[::2], FILES[1:], FILES[1:2]])
def test_saved_and_read_again(tmp_path, kept):
  tokenizer = make([*WORDS, "B-52", "<m>", "<s>", "<e>"], **SETTINGS)
  tokenizer.save_pretrained(str(tmp_path))
  for name in set(FILES) - set(kept):
    (tmp_path / name).unlink()
  changes = {}
  if FILES[2] not in kept:
    with pytest.raises(UserError, match=r"which of <m>, <e> is mask_token"):
      ConvBertTokenizer.from_pretrained(str(tmp_path))
    changes = {"mask_token": "<m>"}
  again = ConvBertTokenizer.from_pretrained(str(tmp_path), **changes)
  assert again.vocabulary == tokenizer.vocabulary
  assert again.settings == tokenizer.settings
  assert again.special_tokens == tokenizer.special_tokens
  assert again.model_max_length == (64 if FILES[2] in kept else 512)
  text = "B-52 <e> Hello <m> unaff"
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
  assert (tokenizer.mask_token, tokenizer.mask_token_id) == ("[MASK]", 4)
  ids = tokenizer.encode("[MASK] <e> B-52")
  assert ids == [2, 4, 13, 14, 3]
  assert tokenizer.decode(ids, skip_special_tokens=True) == "B-52"


def test_ids_without_a_token_are_refused(tmp_path):
  def edit(content):
    del content["model"]["vocab"]["hello"]

  with pytest.raises(UserError, match="none for id 8: later ids"):
    described(tmp_path, edit)


def test_added_tokens_that_would_be_found_otherwise_are_refused(tmp_path):
  def edit(content):
    content["added_tokens"].append(added("B-52", 13, special=False))

  with pytest.raises(UserError, match=r"'B-52' is also found inside words"):
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
  cut = tokenizer(long, truncation=True)["input_ids"][0]
  assert len(cut) == (602 if limit else 512)
  if limit:
    with pytest.raises(UserError, match=r"needs a length.*give max_length"):
      tokenizer(long, padding="max_length")
  out = tokenizer(long[1:], padding="max_length", max_length=700)
  assert out["input_ids"].shape == (1, 700)


def test_bad_settings_are_one_clear_line(tmp_path):
  make().save_pretrained(str(tmp_path))
  words = r"cannot read .*tokenizer_config\.json"
  for content in ("[]", "{", '{"pad_token": {}}', '{"model_max_length": "x"}'):
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(UserError, match=words) as caught:
      ConvBertTokenizer.from_pretrained(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_refusals(tmp_path):
  for call, words in (
    (lambda: make(WORDS[:4]), r"special tokens.*\[MASK\]"),
    (lambda: make(never_split=["B-52"]), "never_split words.*B-52"),
    (lambda: make(mask_tokn="[M]"), "setting 'mask_tokn'.*mask_token"),
    (
      lambda: make()("hello", truncation="only_frist"),
      "truncation 'only_frist'.*only_first",
    ),
    (lambda: make()("hello", padding="longst"), "padding 'longst'.*longest"),
    (
      lambda: make()("hello", truncation=True, max_length=1),
      "max_length=1 leaves no room",
    ),
    (lambda: make()("hello", ["a", "b"]), "1 texts but 2 second texts"),
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
