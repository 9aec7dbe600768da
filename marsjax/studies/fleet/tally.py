"""What came of a fleet so far, with a bar of progress over all its states."""

import contextlib
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from marsjax.studies.fleet.work import StateOutcome

MOST_TOLD = 20
"""States that failed or are not complete whose reasons are kept; of others there is the number."""


class Tally:
    """Counts outcomes, and shows them in a bar while its `shown` block runs.

    Examples:
      >>> tally = Tally()
      >>> tally([StateOutcome(0), StateOutcome(1, error="no such file")])
      >>> tally.made, tally.failed, tally.reasons
      (1, 1, {1: 'no such file'})
    """

    def __init__(self) -> None:
        self.made = self.failed = self.incomplete = 0
        """States of this run that are done, and that failed; all that are done and lack something."""
        self.lost_workers = 0
        self.reasons: dict[int, str] = {}
        """Of the first states that failed or lack something, by number."""
        self._bar: tqdm | None = None

    @contextlib.contextmanager
    def shown(self, done: int, of: int) -> Iterator[None]:
        """A bar of so many states, of which some were done before."""
        with tqdm(total=of, initial=done, unit="state", desc="states", disable=None) as self._bar:
            yield
        self._bar = None

    def __call__(self, outcomes: Sequence[StateOutcome]) -> None:
        """Some states came to an end."""
        for one in outcomes:
            self.made += not one.error
            self.failed += bool(one.error)
            self.tell(one.number, (one.error,) if one.error else one.problems)
            self.incomplete -= bool(one.error)
        if self._bar is not None:
            self._bar.update(len(outcomes))
            self._bar.set_postfix_str(f"{self.failed} failed, {self.lost_workers} workers replaced", refresh=False)

    def tell(self, number: int, problems: Sequence[str]) -> None:
        """A state lacks something, if there are problems."""
        self.incomplete += bool(problems)
        if problems and len(self.reasons) < MOST_TOLD:
            self.reasons[number] = "; ".join(problems)

    def lose_worker(self) -> None:
        """A worker died."""
        self.lost_workers += 1
