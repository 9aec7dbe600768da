"""Programs compiled in a quarter of the time, which take several times as long to run.

For tests about integers: an optimisation changes none. Bits of floating-point numbers it may change: what is to hold to
the bit is tested of the programs that users run.
"""

import contextlib
import functools
from typing import Any

import jax

try:
    from jax._src import compiler
except ImportError:
    compiler = None

OPTIONS = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True,
           "xla_cpu_use_fusion_emitters": False}
_AS_USERS: Any = getattr(compiler, "get_compile_options", None)
"""Not public: where a JAX lacks it, programs are compiled as ever; so are they without an option that it lacks."""


def switch(is_on: bool) -> None:
    """From here on programs are compiled quickly, or as users' are; forgets those compiled the other way."""
    wanted = _quickly if is_on and _known() else _AS_USERS
    if wanted is not getattr(compiler, "get_compile_options", None):
        compiler.get_compile_options = wanted
        jax.clear_caches()


def _quickly(*given: Any, env_options_overrides: dict[str, Any] | None = None, **named: Any) -> Any:
    return _AS_USERS(*given, env_options_overrides={**_known(), **(env_options_overrides or {})}, **named)


@functools.cache
def _known() -> dict[str, Any]:
    """The options that this JAX's compiler of CPU programs has."""
    known: dict[str, Any] = {}
    for name, value in OPTIONS.items() if _AS_USERS and jax.default_backend() == "cpu" else ():
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            jax.jit(lambda x: x, compiler_options={name: value}).lower(0).compile()
            known[name] = value
    return known
