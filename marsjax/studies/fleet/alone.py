"""A fleet's jobs in this process: one of several under SLURM, say, or all of them."""

from collections.abc import Iterable

from marsjax.studies.fleet import work
from marsjax.studies.fleet.ledger import Ledger
from marsjax.studies.fleet.states import Job
from marsjax.studies.fleet.tally import Tally
from marsjax.studies.fleet.work import Work


def run(given: Work, ledger: Ledger, jobs: Iterable[Job], tally: Tally) -> None:
    """Does the jobs, one after the other. InputError or OSError where the work cannot be begun, or nothing written."""
    worker = None
    for job in jobs:
        worker = worker or given.open()
        tally(work.perform(worker, ledger, job))
