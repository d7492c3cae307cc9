"""Tokens, ids, and special tokens."""

import pytest
from tiny_tokenizer import SPECIAL, WORDS, make
from tokenizers import AddedToken

from convbert_jax.errors import UserError

SIZE = len(WORDS)
ROLES = ("unk", "sep", "pad", "cls", "mask")


def test_every_special_token_and_its_id():
  tokenizer = make()
  for role in ROLES:
    token = f"[{role.upper()}]"
    assert getattr(tokenizer, f"{role}_token") == token
    assert getattr(tokenizer, f"{role}_token_id") == WORDS.index(token)
  assert (tokenizer.bos_token, tokenizer.eos_token_id) == (None, None)
  assert tokenizer.all_special_tokens == [f"[{r.upper()}]" for r in ROLES]
  assert tokenizer.all_special_ids == [1, 3, 0, 2, 4]
  assert tokenizer.special_tokens_map == {
    f"{role}_token": f"[{role.upper()}]" for role in ROLES
  }
  assert tokenizer.pad_token_type_id == 0


def test_vocabulary_and_sizes():
  tokenizer = make()
  assert len(tokenizer) == tokenizer.vocab_size == SIZE
  assert tokenizer.get_vocab() == {token: i for i, token in enumerate(WORDS)}
  assert tokenizer.get_added_vocab() == {t: i for i, t in enumerate(SPECIAL)}
  assert tokenizer.vocab == tokenizer.get_vocab()
  assert tokenizer.added_tokens_encoder == tokenizer.get_added_vocab()
  assert tokenizer.vocabulary == tuple(WORDS)
  assert make(tokenizer.get_vocab()).vocabulary == tuple(WORDS)
  assert f"vocab_size={SIZE}" in repr(tokenizer)


def test_conversions():
  tokenizer = make()
  assert tokenizer.convert_tokens_to_ids("world") == 9
  assert tokenizer.convert_tokens_to_ids(["world", "nowhere"]) == [9, 1]
  assert tokenizer.convert_ids_to_tokens(9) == "world"
  assert tokenizer.convert_ids_to_tokens([2, 9, SIZE]) == [
    "[CLS]", "world", None
  ]  # fmt: skip
  assert tokenizer.convert_ids_to_tokens([2, 9, 3], True) == ["world"]
  assert tokenizer.convert_ids_to_tokens(SIZE) is None


def test_added_tokens_get_ids_at_the_end():
  tokenizer = make()
  single = AddedToken("xyz", single_word=True)
  # "hello" was a word, and is found inside words now.
  assert tokenizer.add_tokens(["new", "hello", "new"]) == 2
  assert tokenizer.add_tokens(single) == 1
  assert tokenizer.add_tokens("<e>", special_tokens=True) == 1
  assert (tokenizer.vocab_size, len(tokenizer)) == (SIZE, SIZE + 3)
  assert tokenizer.vocabulary[SIZE:] == ("new", "xyz", "<e>")
  assert tokenizer.tokenize("aNEW xyz wxyz <e>") == [
    "[UNK]", "new", "xyz", "[UNK]", "<e>"
  ]  # fmt: skip
  ids = [SIZE, SIZE + 2]
  assert tokenizer.decode(ids, True) == "new"
  assert tokenizer.get_vocab()["xyz"] == SIZE + 1


def test_added_special_tokens_have_roles():
  tokenizer = make()
  given = {"mask_token": "<m>", "additional_special_tokens": ["<e>", "world"]}
  assert tokenizer.add_special_tokens(given) == 3  # "world" was a word.
  assert tokenizer.add_special_tokens(given) == 0
  assert tokenizer.mask_token_id == SIZE
  assert tokenizer.all_special_tokens[-3:] == ["<m>", "<e>", "world"]
  assert tokenizer.decode([SIZE, 9, 8], True) == "hello"
  more = {"extra_special_tokens": ["<f>"]}
  tokenizer.add_special_tokens(more, replace_extra_special_tokens=False)
  assert tokenizer.additional_special_tokens == ["<e>", "world", "<f>"]
  tokenizer.add_special_tokens(more)
  assert tokenizer.extra_special_tokens == ["<f>"]


def test_special_tokens_that_are_missing_are_added():
  words = ["[UNK]", *WORDS[5:]]
  tokenizer = make(words, bos_token="<s>", additional_special_tokens=["<e>"])
  assert tokenizer.vocab_size == len(words)
  assert sorted(["[UNK]", *tokenizer.vocabulary[len(words) :]]) == sorted(
    [*SPECIAL, "<s>", "<e>"]
  )
  ids = tokenizer.encode("hello nowhere <e>", "un")
  assert tokenizer.convert_ids_to_tokens(ids) == [
    "[CLS]", "hello", "[UNK]", "<e>", "[SEP]", "un", "[SEP]"
  ]  # fmt: skip


def test_roles_can_be_set():
  tokenizer = make()
  tokenizer.cls_token = "world"
  tokenizer.sep_token_id = 8
  tokenizer.unk_token = "un"
  tokenizer.eos_token = "<end>"
  assert tokenizer.encode("nowhere") == [9, 5, 8]
  assert tokenizer.build_inputs_with_special_tokens([5]) == [9, 5, 8]
  assert tokenizer.eos_token_id == SIZE
  tokenizer.mask_token = None
  assert tokenizer.mask_token_id is None


def test_refusals():
  repeated = [*WORDS, "hello"]
  assert make(repeated).convert_ids_to_tokens([8, SIZE]) == ["hello"] * 2
  for call, words in (
    (lambda: make(repeated).add_tokens("new"), "'new': .*repeated lines"),
    (lambda: make().add_special_tokens({"maks_token": "x"}), "did you mean"),
    (lambda: setattr(make(), "pad_token", None), "pad_token=None"),
    (lambda: setattr(make(), "pad_token", 3), "pad_token is of type int"),
    (
      lambda: setattr(make(), "unk_token", "<u>"),
      "the vocabulary has no token '<u>'",
    ),
  ):
    with pytest.raises(UserError, match=words) as caught:
      call()
    assert "\n" not in str(caught.value)
