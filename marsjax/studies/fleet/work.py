"""What is made of states, by the import path of a function, so that any process can be told to do it."""

import dataclasses
import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from jax.errors import JaxRuntimeError

from marsjax.core.errors import InputError, brief
from marsjax.studies.fleet.ledger import Columns, Ledger
from marsjax.studies.fleet.states import Job

_LONGEST = 400
"""Of an error of one state."""
_NO_MEMORY = "RESOURCE_EXHAUSTED"
"""In JAX's error where a device has not enough memory."""


class MadeState(NamedTuple):
    """What came of one state."""

    number: int
    columns: Columns
    """Its table; of all states of a fleet the same columns."""
    problems: tuple[str, ...] = ()
    """Why it is not complete."""


class StateOutcome(NamedTuple):
    """Whether a state is done."""

    number: int
    error: str = ""
    """Why it is not; empty if it is."""
    problems: tuple[str, ...] = ()


Worker = Callable[[Job], Iterator[MadeState]]
"""Makes the states of a job, each when it is asked for the next. An InputError, OSError or MemoryError is the state's,
as is JAX's error where a device has not enough memory; any other is a fault of the program, and ends the fleet."""


@dataclasses.dataclass(frozen=True)
class Work:
    """A function `module:name` that is called once a process and gives its `Worker`.

    Examples:
      >>> Work("marsjax.no_such_module:call").open()
      Traceback (most recent call last):
      marsjax.core.errors.InputError: work: no module marsjax.no_such_module
    """

    call: str
    given: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """The keywords it is called with: plain values, which another machine is sent."""
    folder: str = ""
    """Current folder of the process, from which paths lead; empty: as it is."""

    def open(self) -> Worker:
        """The worker, in this process. InputError where the function or the folder is not there."""
        module, _, name = self.call.partition(":")
        if self.folder:
            try:
                os.chdir(self.folder)
            except OSError as error:
                raise InputError(f"work: a worker cannot enter the folder {self.folder} ({error.strerror}): a fleet "
                                 "needs one that all its machines see") from error
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise InputError(f"work: no module {error.name}") from error
        if not hasattr(found, name):
            raise InputError(f"work: {module} has no {name!r}")
        worker: Worker = getattr(found, name)(**self.given)
        return worker


def perform(worker: Worker, ledger: Ledger, job: Job) -> list[StateOutcome]:
    """Makes the states of a job that are not done yet, and writes them; errors of writing are raised.

    Where one of several fails, those that are left are made one by one: no state fails for what another lacks.
    """
    left = {state.number: state for state in job if not ledger.is_done(state.number)}
    outcomes, error = [StateOutcome(state.number) for state in job if state.number not in left], ""
    made = _each(worker, tuple(left.values()))
    while left and not error:
        try:
            one = next(made, None)
        except (InputError, OSError, MemoryError, JaxRuntimeError) as failed:
            if isinstance(failed, JaxRuntimeError) and _NO_MEMORY not in str(failed):
                raise
            error = brief(failed, _LONGEST)
            continue
        if one is None:
            raise RuntimeError(f"the worker left out the states {sorted(left)}")
        ledger.write(one.number, one.columns, one.problems)
        del left[one.number]
        outcomes.append(StateOutcome(one.number, problems=one.problems))
    if len(left) == 1:
        return [*outcomes, *(StateOutcome(number, error) for number in left)]
    for state in left.values():
        outcomes += perform(worker, ledger, (state,))
    return outcomes


def _each(worker: Worker, job: Job) -> Iterator[MadeState]:
    """Calls the worker when the first state is asked for."""
    if job:
        yield from worker(job)

