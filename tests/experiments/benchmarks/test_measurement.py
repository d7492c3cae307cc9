"""Values as text and in a file."""

import json

from experiments.benchmarks.measurement import Measurement, median, report


def test_values_as_text():
  ratio = Measurement(1.6249, low=1.5512, high=1.7)
  assert str(ratio) == "1.62 (1.55 to 1.7)"
  rate = Measurement(12345.6, "tokens/s", 999.6, 20000.0)
  assert str(rate) == "12346 tokens/s (1000 to 20000)"
  assert str(Measurement(3.0961e-6)) == "3.096e-06"
  assert median([4.0, 1.0, 2.0, 3.0], "s") == (2.5, "s", 1.75, 3.25)


def test_the_file_holds_what_is_printed(tmp_path, capsys):
  path = tmp_path / "new" / "values.json"
  found = {"step time": Measurement(2.0, "s"), "ratio": median([1, 3])}
  report(found, str(path))
  assert capsys.readouterr().out == "step time: 2 s\nratio: 2 (1.5 to 2.5)\n"
  assert json.loads(path.read_text()) == {
    "step time": {"value": 2.0, "unit": "s"},
    "ratio": {"value": 2.0, "unit": "", "low": 1.5, "high": 2.5},
  }
