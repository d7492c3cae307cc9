"""What a pre-training run says of its own numbers, each thing once."""

from collections.abc import Iterator, Mapping

# Share of a step's time in which the host waits for data, and the number of
# reports in turn that must show it: the first fills the loader's buffers. Less
# than this is spent while the devices compute.
_SLOW_SHARE, _SLOW_REPORTS = 0.5, 2
# Held-out AUC below which a discriminator cannot be told from chance.
_PLATEAU_AUC = 0.55


class Remarks:
  """Lines to show below a row of metrics.

  Args:
    warmup_steps: steps before which a plateau is nothing to remark on.
  """

  def __init__(self, warmup_steps: float) -> None:
    self._warmup_steps = warmup_steps
    self._explained = False
    self._warned = False
    self._slow_reports = 0

  def __call__(self, step: int, row: Mapping[str, float]) -> Iterator[str]:
    """Yields what the row is the first to show."""
    yield from self._of_the_loader(row)
    yield from self._of_the_discriminator(step, row)

  def _of_the_loader(self, row: Mapping[str, float]) -> Iterator[str]:
    if "data_wait_seconds" not in row or self._slow_reports == _SLOW_REPORTS:
      return
    waited, whole = row["data_wait_seconds"], row["seconds_per_step"]
    slow = waited > _SLOW_SHARE * whole
    self._slow_reports = self._slow_reports + 1 if slow else 0
    if self._slow_reports == _SLOW_REPORTS:
      yield (
        f"  the devices wait for data, {1000 * waited:,.0f} ms of the"
        f" {1000 * whole:,.0f} of each step: try a larger data.num_threads,"
        " some data.num_workers, or records on a quicker disk"
      )

  def _of_the_discriminator(
    self, step: int, row: Mapping[str, float]
  ) -> Iterator[str]:
    """Yields nothing for an MLM."""
    if "eval_discriminator_auc" not in row:
      return
    if not self._explained:
      self._explained = True
      yield (
        f"  {row['eval_replaced_rate']:.1%} of the tokens are replaced; a"
        " discriminator that knows only this share has a loss of"
        f" {row['eval_discriminator_loss_baseline']:.3f} and an AUC of 0.5"
      )
    if (
      not self._warned
      and step > self._warmup_steps
      and row["eval_discriminator_auc"] < _PLATEAU_AUC
      and row["eval_discriminator_recall"] == 0
    ):
      self._warned = True
      yield (
        "  the discriminator has not begun to tell replaced tokens from others;"
        " if it stays so, try a smaller objective.discriminator_weight (10 is"
        " that of tiny), model.conv_kernel_init=spread, half the learning rate"
        " or a longer warmup in a new workdir"
      )
