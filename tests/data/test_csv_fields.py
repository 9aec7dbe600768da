"""Numbers out of the bytes of a file, whole columns at a time, against Python's own reading of each text."""

import random
import re

import numpy as np
import pytest

from marsjax.data import csv_fields

PLAIN = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)")
ODD = ["", "+", "-", ".", "5.", ".5", "-.5", "+5.", "1.2.3", "--5", "+-5", "1e5", "/5", "5/", ":5", "1 2", "5\0", "é5",
       "12345678", "123456789", "1234567a", "a2345678", "12345678/", "/12345678", "0.000000001", "000000000000000001"]


def texts_of(seed: int, alphabet: str) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices(alphabet, k=rng.randint(0, 22))) for _ in range(3000)]


@pytest.mark.parametrize("texts", [
    ODD, *(["7" * length] for length in range(1, 22)), [f"-{10 ** n}" for n in range(20)],
    texts_of(0, "0123456789"), texts_of(1, "0123456789" * 3 + ".-+"), texts_of(2, "0123456789./:e ")])
def test_plain_decimals_are_read_exactly_and_nothing_else_is(texts: list[str]) -> None:
    value, behind, good = csv_fields.decimals(csv_fields.of_texts(texts))
    for text, number, places, is_read in zip(texts, value.tolist(), behind.tolist(), good.tolist(), strict=True):
        digits = sum(letter.isdigit() for letter in text)
        assert is_read == (bool(PLAIN.fullmatch(text)) and digits <= 18 and len(text) <= 20), text
        if is_read:
            assert (number, places) == (int(text.replace(".", "")), len(text.partition(".")[2])), text


def test_no_texts_are_no_numbers() -> None:
    assert [len(part) for part in csv_fields.decimals(csv_fields.of_texts([]))] == [0, 0, 0]


def test_numbers_of_any_form_are_pythons() -> None:
    texts = [*(f"{x:.{n}e}" for n, x in enumerate(np.random.default_rng(3).uniform(-1e9, 1e9, 15))), "12.5", "7", "x"]
    got = csv_fields.numbers(csv_fields.of_texts(texts))
    np.testing.assert_array_equal(got[:-1], [float(text) for text in texts[:-1]])
    assert np.isnan(got[-1])
