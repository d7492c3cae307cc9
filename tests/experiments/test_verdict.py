"""What the quickstart says of what pre-training bought."""

import pytest

from experiments import quickstart


@pytest.mark.parametrize(
  ("gain", "std", "said"),
  [
    (9.5, 4.0, "bought 9.5 points, more than the seeds differ"),
    (3.0, 4.0, "bought nothing here: +3.0 points, and the seeds differ by 4.0"),
    (-2.0, 1.0, "bought nothing here: -2.0 points"),
  ],
)
def test_it_is_that_of_the_figures(gain, std, said):
  scratch = {"median": 10.0, "std": std, "best": 12.0, "count": 3}
  pretrained = scratch | {"median": 10.0 + gain, "std": 1.0}
  assert said in quickstart.verdict(pretrained, scratch).splitlines()[-1]
