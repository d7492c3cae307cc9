"""Words between white space that are neither lower-cased nor split.

The tokenizers library's normaliser folds every character, and its
pre-tokenizer splits at every punctuation mark. So the characters of such words
that would be folded are replaced, one by one to keep their offsets, by marks
which no token has, and get their place back after the folding. All of it is
stored in a tokenizer.json, and needs no Python.
"""

import re
from collections.abc import Collection, Iterator, Sequence

from tokenizers import Regex, normalizers, pre_tokenizers

# Marks are letters that folding leaves alone: those of Yi.
_MARKS = range(0xA000, 0xA48D)
_PUNCTUATION = r"[!-/:-@\[-`{-~]|\p{P}"


def make_pipeline(
  words: Sequence[str],
  vocabulary: Collection[str],
  cleaning: normalizers.Normalizer,
  folding: normalizers.Normalizer,
) -> tuple[normalizers.Normalizer, pre_tokenizers.PreTokenizer]:
  """Returns a normaliser and a pre-tokenizer that leave some words alone.

  Args:
    words: without white space; those that are not in the vocabulary become the
      unknown token.
    vocabulary: all tokens.
    cleaning: cleans text and puts white space around ideographs.
    folding: changes single characters: case and accents.
  """
  used = {c for token in (*vocabulary, *words) for c in token}
  marks = (chr(i) for i in _MARKS if chr(i) not in used)
  # A word with this character is unknown, whatever its other pieces are.
  unknown = next(marks)
  spellings = {
    word: word if word in vocabulary else unknown + word[1:] for word in words
  }
  folded = {
    c: next(marks)
    for c in sorted(set("".join(words)))
    if folding.normalize_str(c) != c
  }
  steps = [
    cleaning,
    *(normalizers.Replace(mark, unknown) for mark in folded.values()),
    *_marking(spellings, folded),
    folding,
    *(normalizers.Replace(mark, c) for c, mark in folded.items()),
  ]
  kept = "|".join(re.escape(w) for pair in spellings.items() for w in pair)
  splitting = pre_tokenizers.Split(
    Regex(rf"\A(?:{kept})\z|{_PUNCTUATION}"), "isolated"
  )
  return (
    normalizers.Sequence(steps),
    pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), splitting]),
  )


def _marking(
  spellings: dict[str, str], folded: dict[str, str]
) -> Iterator[normalizers.Normalizer]:
  """Yields a replacement for each character, first to last of every word."""
  for word, spelling in spellings.items():
    before = ""
    for i, wanted in enumerate(spelling):
      wanted = folded.get(wanted, wanted)
      if wanted != word[i]:
        done, after = re.escape(before), re.escape(word[i + 1 :])
        yield normalizers.Replace(
          Regex(rf"(?<=^{done}|\s{done}){re.escape(word[i])}(?={after}(?!\S))"),
          wanted,
        )
      before += wanted
