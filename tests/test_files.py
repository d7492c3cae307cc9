"""What a disk refuses, in one line."""

import errno

import pytest

from convbert_jax import files
from convbert_jax.errors import UserError


def test_a_disk_that_takes_no_more_is_explained():
  for error, message in (
    (OSError(errno.ENOSPC, "x"), "no room left to write in out;"),
    (OSError(errno.EDQUOT, "x"), "no room left to write in out;"),
    (RuntimeError("No space left on device; writing"), "no room left"),
    (PermissionError(errno.EACCES, "x"), "cannot write in out: it is write-"),
    (OSError(errno.EROFS, "x"), "cannot write in out: it is write-protected"),
  ):
    with (
      pytest.raises(UserError, match=message),
      files.explained_disk_errors("out"),
    ):
      raise error


def test_other_errors_stay_what_they_are():
  for error in (OSError(errno.EIO, "x"), RuntimeError("x")):
    with (
      pytest.raises(type(error), match="x"),
      files.explained_disk_errors("out"),
    ):
      raise error
