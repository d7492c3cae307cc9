"""A config that knows which of its fields were read."""


class Recording:
  """A config that notes which of its fields are read one by one."""

  def __init__(self, config, read, prefix=""):
    self._config, self._read, self._prefix = config, read, prefix
    self.to_dict = config.to_dict

  def __getattr__(self, name):
    value = getattr(self._config, name)
    if hasattr(value, "to_dict"):
      return Recording(value, self._read, f"{self._prefix}{name}.")
    self._read.add(f"{self._prefix}{name}")
    return value

  def keys(self):
    return self._config.keys()

  def __getitem__(self, name):
    return getattr(self, name)
