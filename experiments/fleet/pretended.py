"""A fleet's worker that pretends: it sleeps for every state, and may put down what it does, or die."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from marsjax.core.errors import InputError
from marsjax.studies.fleet.states import Job
from marsjax.studies.fleet.work import MadeState, Worker


def open_worker(seconds: float, diary: str = "", dies_of: Sequence[int] = (), fails: Sequence[int] = ()) -> Worker:
    """A worker that takes so long for a state.

    Args:
      seconds: of a state.
      diary: a file that gets a line a state, its number and the process; empty: none.
      dies_of: numbers of states that end the process.
      fails: numbers of states that are an InputError.
    """
    def make(job: Job) -> Iterator[MadeState]:
        for state in job:
            if diary:
                with Path(diary).open("a", encoding="utf-8") as file:
                    file.write(f"{state.number} {os.getpid()}\n")
            if state.number in dies_of:
                os._exit(1)
            if state.number in fails:
                raise InputError(f"{state.day}: expected another state than {state.number}")
            time.sleep(seconds)
            yield MadeState(state.number, {"state": np.array([state.number]), "market": [state.day],
                                      "drawn": np.random.default_rng(state.number).random(1)})

    return make
