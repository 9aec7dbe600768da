"""Which of several ways to one result a compiled program takes: what is fast on an accelerator is slow on a CPU.

The ways give the same integers; floating-point ones differ by rounding. The choice is made once, at the edge: a spec
holds a `Kernels`, or None for those of the device that JAX works on. Nothing below asks for the device.
"""

import dataclasses
import functools
import importlib
import logging
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core.errors import InputError, brief


@dataclasses.dataclass(frozen=True)
class Kernels:
    """The ways to take; hashable, part of `MarketSpec` and `CacheSpec`. The defaults are those of a CPU."""

    prefix_sum: str = "scan"
    """Running sums over slots: `scan`, few operations, or `windows`, few kernels."""
    pack: str = "steps"
    """Moving kept slots together: `steps`, few operations a slot, or `indices`, few kernels."""
    shift: str = "fused"
    """Moving the slots of a side on: `fused` with what is done to them, or from a copy `laid` down before."""
    first_shares: str = "steps"
    """Shares taken off the first of many orders: `steps`, order by order, or `sum`, by one running sum. One order among
    many is found alike, by halving the slots or by one running count."""
    heads_first: bool = True
    """Whether deep books of a batch are looked at by their heads first, and as a whole where these are not enough."""
    attention: str = "columns"
    """Attention of one query to a cache: `columns`, for which the keys of a ring lie with their slots last (of a
    context products of matrices), or `sums`, which read the cache as it lies.
    `kernel`: in the mode `refresh` one program of a GPU for each query and head, which reads filled slots alone, and
    else `sums`. `interpreted` is the kernel run step by step on any device, for tests."""
    rows: int | None = 16
    """Trajectories decoded together, for reproducibility alone: on a CPU the bits of a matrix product depend on the
    number of its rows, and with this one fixed a trajectory comes out bitwise the same in any batch. None: all."""
    contexts: int = 8
    """Trajectories whose new contexts are encoded together, where rows are decoded in blocks."""
    logits: int = 2**20
    """Logits of all rows together that are made at a time."""
    head: str = "xla"
    """Head and draw: `xla`, operations of JAX; `kernel`, kernels of a GPU (`model.head_kernel`); or `interpreted`,
    these kernels step by step on any device, for tests."""
    encode: str = "xla"
    """Attention among the tokens of a context that is made anew, in bfloat16: `xla`, operations of JAX, with all scores
    in memory; `cudnn`, one kernel of NVIDIA's library; or `stand_in`, operations of JAX behind the call of that kernel,
    for tests."""
    book: str = "xla"
    """Orders to a batch of books, and views of it: `xla`, operations of JAX; `kernel`, kernels of a GPU that change
    books in place (`market.book_kernel`); or `interpreted`, these kernels step by step on any device, for tests."""
    loops: str = "host"
    """Who runs the loops of a compiled chunk of steps on a GPU: the `host`, as the compiler does by itself, which asks
    the device before each round whose need only the device knows; or the device, from a `graph` that holds them
    (`compiler_options`)."""
    steps: int = 64
    """Decisions of a compiled call, where `RolloutSpec.chunk_steps` does not say. Between two calls an accelerator
    waits for the host, for about a millisecond."""
    steps_a_look: int = 1
    """Of these, steps of controlled futures between two looks at whether one of them has not come to the end of its
    interval. A look may be a wait for the host; without one, steps are made that change nothing."""
    further_turns: int | None = 8
    """After the first turn of all trajectories, so many of those that have another are gathered and take it together,
    until none has. None: all are computed until the last has none."""
    one_by_one: bool = True
    """Whether a replay takes its markets in turn, not together."""
    one_function: bool = True
    """Whether a loop over orders is compiled as one function, not as a call for each operation: `core.one_function`."""

    def __post_init__(self) -> None:
        ways = {"prefix_sum": ("scan", "windows"), "pack": ("steps", "indices"), "shift": ("fused", "laid"),
                "first_shares": ("steps", "sum"), "attention": ("columns", "sums", "kernel", "interpreted"),
                "head": ("xla", "kernel", "interpreted"), "encode": ("xla", "cudnn", "stand_in"),
                "book": ("xla", "kernel", "interpreted"), "loops": ("host", "graph")}
        for name, known in ways.items():
            if getattr(self, name) not in known:
                raise InputError(f"Kernels.{name}: expected {' or '.join(known)}, got {getattr(self, name)!r}")
        for name in ("contexts", "logits", "rows", "steps", "steps_a_look", "further_turns"):
            value, may_be_none = getattr(self, name), name in ("rows", "further_turns")
            if not (may_be_none and value is None) and (type(value) is not int or value < 1):
                raise InputError(f"Kernels.{name}: expected a whole number of at least 1, got {value!r}")


CPU = Kernels()
"""For few cores: little work, in blocks that stay in their caches."""
ACCELERATOR = Kernels(
    prefix_sum="windows", pack="indices", first_shares="sum", heads_first=False, attention="sums", rows=None,
    logits=2**23, steps=256, steps_a_look=16, further_turns=None, one_by_one=False, one_function=False)
"""For many cores: few large kernels, and no step that waits for an answer."""
GPU = dataclasses.replace(ACCELERATOR, attention="kernel", head="kernel", book="kernel")
"""For a GPU that kernels of our own can be written for: `has_triton`. With `encode` by cuDNN and
`loops` from graphs where there are such: `has_cudnn`, `has_graphs`."""
_LEAST_CAPABILITY = 8.0
"""Of a GPU whose matrix units take bfloat16."""


def for_platform(platform: str) -> Kernels:
    """The ways of a platform as JAX names it: `cpu`, `gpu`, whose device this starts, or another accelerator."""
    if platform == "cpu":
        return CPU
    if platform not in ("gpu", "cuda") or not has_triton():
        return ACCELERATOR
    return dataclasses.replace(GPU, encode="cudnn" if has_cudnn() else "xla", loops="graph" if has_graphs() else "host")


@functools.cache
def has_triton() -> bool:
    """Whether kernels can be written for the first GPU; a line in the log says so, once, where they cannot.

    JAX 0.11 calls its Triton backend deprecated: a version without it, or with another form of it, takes XLA's ways.
    """
    try:
        device = jax.devices("gpu")[0]
        capability = str(getattr(device, "compute_capability", None))
        if re.fullmatch(r"\d+\.\d+", capability) and float(capability) >= _LEAST_CAPABILITY:
            _try_triton()
            return True
        reason = f"{device.device_kind} has compute capability {capability}, not {_LEAST_CAPABILITY} or more"
    except (ImportError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        # What a JAX to come raises in place of what it has no more is not known.
        reason = f"JAX {jax.__version__}, {type(error).__name__}: {brief(error)}"
    logging.getLogger(__name__).warning(
        "books, head, draw and attention to contexts by XLA, not by the faster kernels: %s", reason)
    return False


@functools.cache
def has_cudnn() -> bool:
    """Whether cuDNN's attention compiles for JAX's default device; a line in the log says so, once, where not."""
    shape = jax.ShapeDtypeStruct((1, 64, 1, 64), jnp.bfloat16)
    attend = functools.partial(jax.nn.dot_product_attention, is_causal=True, implementation="cudnn")
    try:
        jax.jit(attend).lower(shape, shape, shape).compile()
        return True
    except (ImportError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        logging.getLogger(__name__).warning(
            "refreshes of contexts by XLA, not by cuDNN's faster attention: JAX %s, %s: %s", jax.__version__,
            type(error).__name__, brief(error))
        return False


@functools.cache
def has_graphs() -> bool:
    """Whether JAX's default device runs a loop from a graph; a line in the log says so, once, where not."""
    double = jax.jit(lambda x: jax.lax.while_loop(lambda x: x < 100, lambda x: 2 * x, x),
                     compiler_options=compiler_options(Kernels(loops="graph")))
    try:
        # Compiled first: JAX 0.11 takes no compiler options where the question is asked while a function is traced.
        found = int(double.lower(jax.ShapeDtypeStruct((), jnp.int32)).compile()(np.int32(3)))
        if found != 192:
            raise RuntimeError(f"3 doubled to 100 and beyond gave {found}")
        return True
    except (TypeError, ValueError, RuntimeError) as error:
        logging.getLogger(__name__).warning(
            "loops by the host, not from CUDA graphs: JAX %s, %s: %s", jax.__version__, type(error).__name__,
            brief(error))
        return False


def _try_triton() -> None:
    """Lowers a small kernel with what the kernels use of Pallas; raises what that raises."""
    pallas = importlib.import_module("jax.experimental.pallas")
    triton = importlib.import_module("jax.experimental.pallas.triton")
    size = pallas.next_power_of_2(15)

    def double(x: Any, y: Any) -> None:
        at = pallas.ds(pallas.program_id(0) * size, size)
        mask = jnp.arange(size) < size - 1

        @pallas.when(pallas.program_id(0) < 2)
        def _() -> None:
            twice = 2 * triton.load(x.at[at], mask=mask, other=0.0)
            triton.debug_barrier()
            triton.store(y.at[at], jax.lax.cumsum(twice, axis=0), mask=mask)

    shape = jax.ShapeDtypeStruct((2 * size,), jnp.float32)
    whole = pallas.BlockSpec(shape.shape, lambda i: (0,))
    call = pallas.pallas_call(
        double, out_shape=shape, grid=(pallas.cdiv(2 * size, size),), in_specs=[whole], out_specs=whole,
        input_output_aliases={0: 0}, compiler_params=triton.CompilerParams(num_warps=1, num_stages=1))
    jax.jit(call).trace(shape).lower(lowering_platforms=("cuda",))


def compiler_options(ways: Kernels) -> dict[str, str | bool] | None:
    """What the compiler of a chunk of steps is told for `Kernels.loops`; None: nothing.

    Without copies at places that the host knows (`DYNAMIC_SLICE_FUSION`), which a graph would make at one place alone.
    """
    if ways.loops == "host":
        return None
    return {"xla_gpu_enable_command_buffer": "FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,WHILE,CONDITIONAL",
            "xla_gpu_graph_min_graph_size": "1"}


def chosen(given: Kernels | None) -> Kernels:
    """The ways given, or those of JAX's default device (`jax.default_device` counts), which this starts."""
    if given is not None:
        return given
    device = getattr(jax.config, "jax_default_device", None)
    return for_platform(jax.default_backend() if device is None else getattr(device, "platform", str(device)))
