"""How many workers a cluster has room for; what can never be placed is refused before Ray waits for it."""

import os
from pathlib import Path

import pytest

from marsjax.core.errors import InputError
from marsjax.studies.fleet import actors, ledger
from marsjax.studies.fleet.actors import ActorSpec, Crew, Node, workers_of
from marsjax.studies.fleet.tally import Tally
from marsjax.studies.fleet.work import Work


@pytest.mark.parametrize(("nodes", "spec", "expected"), [
    ([Node(2, 0)], ActorSpec(), Crew(2, 0)), ([Node(2, 0)], ActorSpec(workers=5), Crew(5, 0)),
    ([Node(3, 0), Node(3, 0)], ActorSpec(cores=2), Crew(2, 0)),
    ([Node(16, 4)], ActorSpec(cores=2), Crew(4, 1)), ([Node(16, 4)], ActorSpec(cores=8), Crew(2, 1)),
    ([Node(64, 0), Node(8, 1)], ActorSpec(cores=8), Crew(1, 1))])
def test_workers_are_those_that_machines_have_room_for(nodes: list[Node], spec: ActorSpec, expected: Crew) -> None:
    assert workers_of(nodes, spec) == expected


@pytest.mark.parametrize(("nodes", "expected"), [
    ([Node(2, 0), Node(3, 0)], "of a machine for a worker, got 4; machines of the cluster have 3 with 0 GPUs, 2 with"),
    ([Node(64, 0), Node(3, 1)], "of a machine with a GPU for a worker, got 4"), ([], "of the cluster have none")])
def test_a_worker_that_no_machine_has_room_for_is_refused(nodes: list[Node], expected: str) -> None:
    for workers in (0, 2):
        with pytest.raises(InputError, match=f"^cores: .*{expected}"):
            workers_of(nodes, ActorSpec(workers=workers, cores=4))


def test_this_machine_has_room_for_a_worker(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    own = len(os.sched_getaffinity(0))
    with pytest.raises(InputError, match=rf"^cores: expected at most the {own} .*--config\.cores={own}\)$"):
        actors.run(Work("x:y"), ledger.open_ledger(tmp_path, {}), [], Tally(), ActorSpec(cores=own + 1))
