"""Numbers that stand in files and in the reference's tokens never change, and sums of two of the largest fit."""

from marsjax.core.records import (
    EMPTY_PRICE,
    EMPTY_SIDE_SPREAD,
    MAX_PRICE,
    MAX_VOLUME,
    NO_ACCOUNT,
    NO_ID,
    NO_PRICE,
    Condition,
    Kind,
    Side,
    Status,
)
from marsjax.core.sessions import Phase


def test_kinds_are_numbered_as_in_the_tokens_and_sides_as_the_orders_that_rest_there() -> None:
    assert [(x.name, x.value) for x in Kind] == [("SELL", 0), ("BUY", 1), ("CANCEL", 2), ("NONE", 3)]
    assert (int(Side.ASK), int(Side.BID)) == (int(Kind.SELL), int(Kind.BUY))


def test_statuses_keep_their_numbers() -> None:
    assert [x.name for x in Status] == [
        "ACCEPTED", "NO_ORDER", "UNKNOWN_ID", "OVER_CANCEL", "BAD_VOLUME", "BAD_PRICE", "BAD_KIND", "SIDE_FULL",
        "DUPLICATE_ID", "CLOSED", "BAD_ACCOUNT", "BAD_TIME", "AUCTION_DUE", "NOTHING_TO_CANCEL",
        "BAD_CONDITION", "NOT_IN_AUCTION", "NOT_FILLED", "WOULD_TRADE", "NO_BEST_PRICE"]
    assert [x.name for x in Condition] == [
        "REST", "IMMEDIATE_OR_CANCEL", "FILL_OR_KILL", "POST_ONLY", "MARKET", "OWN_BEST", "OPPOSITE_BEST"]
    assert [x.value for x in Condition] == list(range(len(Condition)))
    assert [x.value for x in Status] == list(range(len(Status)))
    assert [(x.name, x.value) for x in Phase] == [
        ("CLOSED", 0), ("OPEN_AUCTION", 1), ("CONTINUOUS", 2), ("CLOSE_AUCTION", 3)]


def test_what_stands_for_nothing_is_no_value_of_an_order() -> None:
    assert (NO_ID, NO_ACCOUNT, NO_PRICE, EMPTY_PRICE) == (-1, -1, -1, 0)
    assert EMPTY_SIDE_SPREAD == 1000
    assert (MAX_VOLUME, MAX_PRICE) == (2**31 - 1, 2**30 - 1)
    assert 2 * MAX_PRICE <= 2**31 - 1
