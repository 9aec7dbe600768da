"""Keys of both styles are one key; what is no key is refused."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core import keys


def test_both_styles_draw_the_same() -> None:
    new, old = jax.random.key(3), jax.random.PRNGKey(3)
    expected = jax.random.bits(new, (4,))
    for key in (new, old, np.asarray(old)):
        np.testing.assert_array_equal(jax.random.bits(keys.typed(key), (4,)), expected)
    np.testing.assert_array_equal(jax.jit(lambda key: jax.random.bits(keys.typed(key), (4,)))(old), expected)
    assert keys.typed(jnp.stack([old, old])).shape == (2,)
    assert keys.typed(jax.random.split(new, 3)).shape == (3,)


@pytest.mark.parametrize(("value", "says"), [
    (0, r"int32\[\]"), (np.zeros(2, np.float32), r"float32\[2\]"), (np.zeros(3, np.uint32), r"uint32\[3\]"),
    (np.uint32(1), r"uint32\[\]")])
def test_what_is_no_key_is_refused(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=rf"^seed: expected a key .*, got {says}$"):
        keys.typed(value, "seed")
