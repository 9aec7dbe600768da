"""The study of `experiments/architectures`: its similarities, its draws, and what its spans of steps hold."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from marsjax.studies.scaling import MadeOrders

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def measure() -> Any:
    """The program."""
    path = Path(__file__).parents[2] / "experiments" / "architectures" / "measure.py"
    spec = importlib.util.spec_from_file_location("architectures_measure", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look for it there
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize(("mine", "writer", "expected"), [
    ([5] * 11, [3] * 10 + [7], 0.0), ([3] * 11, [3] * 10 + [7], 10 / 11), ([9, 0], [3, 7], 0.0), ([7, 3], [3, 7], 1.0)])
def test_a_value_that_one_alone_wrote_is_in_no_bin_of_the_other(measure: Any, monkeypatch: pytest.MonkeyPatch,
                                                                mine: list[int], writer: list[int], expected: float
                                                                ) -> None:
    monkeypatch.setattr(measure, "_quantities", lambda _, tokens: {"volume": tokens[None]})
    found = measure._similarities(None, np.array(mine), np.array(writer))
    assert found["volume"] == pytest.approx(expected)


def test_no_futures_that_are_compared_have_the_numbers_of_others(measure: Any, monkeypatch: pytest.MonkeyPatch,
                                                                 tmp_path: Path) -> None:
    taken: list[range] = []

    def made_orders(_: Any, __: Any, spec: Any) -> MadeOrders:
        taken.append(range(spec.first, spec.first + spec.futures))
        return MadeOrders(np.zeros((1, 2, 16), np.int32), 1, 0, 1, 1)

    for owner, name, value in ((measure.scaling, "made_orders", made_orders), (measure, "_speed", lambda *_: 1.0),
                               (measure.scaling, "of_made", lambda *_: None), (measure, "_similarities", lambda *_: {}),
                               (measure.scaling, "floor", lambda *_: np.arange(2.0))):
        monkeypatch.setattr(owner, name, value)
    part: Any = SimpleNamespace(spec=SimpleNamespace(tokens=None), model=None)
    writer: Any = SimpleNamespace(model=part, cache=SimpleNamespace(mode="rolling"))
    measure._made(tmp_path / "orders.npz", writer, [None], measure.Sizes())
    measure._measure(writer, [None, None], None, np.zeros((1, 1, 15)), measure.Sizes())
    assert len(taken) == 3
    for place, one in enumerate(taken):
        for other in taken[place + 1:]:
            assert not range(max(one.start, other.start), min(one.stop, other.stop)), (one, other)


def test_a_timed_span_holds_whole_refresh_periods(measure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the periods that wide models are decoded with; all spans are alike, also the one before the first."""
    spans: list[int] = []
    monkeypatch.setattr(measure, "_several", lambda simulator, state, steps: spans.append(steps) or state)
    monkeypatch.setattr(measure.starts, "states_of_feed", lambda *_: SimpleNamespace(starts=[np.zeros(1)]))
    monkeypatch.setattr(measure.futures, "first_capacity", lambda *_: 8)
    monkeypatch.setattr(measure, "resize", lambda start, _: start)
    monkeypatch.setattr(measure.sim_step, "begin", lambda _, begun, *__: begun)
    monkeypatch.setattr(measure.dataclasses, "replace", lambda market, **_: market)
    simulator = SimpleNamespace(replace=lambda **_: np.zeros(1))
    prepared: Any = SimpleNamespace(simulator=lambda _: simulator)
    day = SimpleNamespace(feed=SimpleNamespace(venue=SimpleNamespace(market=lambda **_: None)), start_ns=0)
    for sizes in (measure.Sizes(), measure.SMALL):
        spans.clear()
        measure._speed(prepared, day, 2, sizes)
        assert len(spans) == 1 + sizes.repeats and len(set(spans)) == 1
        assert spans[0] >= sizes.refresh_every and spans[0] % sizes.refresh_every == 0
