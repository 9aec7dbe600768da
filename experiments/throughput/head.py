"""Microseconds of head and draw on a GPU, by XLA and by the kernels, of their parts and of sizes of tiles; JSON lines.

    python experiments/throughput/head.py --what=error,speed,parts,tiles --seconds=85

`error`: largest differences from float64 NumPy. `speed`: complete draws. `parts`: the kernels one by one. `tiles`: the
first of them, which makes the logits, in many sizes and ways to multiply. A case that fails prints its error.
"""

import argparse
import concurrent.futures
import functools
import itertools
import json
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core.specs import ComputeSpec
from marsjax.model import head_kernel, layers, sampling
from marsjax.model.head_kernel import Products, Tiles, Weights

CLASSES = 49_152
ONE = ((0, 0),)
PRESET = jax.lax.DotAlgorithmPreset
SPLITS = {"bf16x6": head_kernel.products_of(ComputeSpec()),
          "bf16x3": head_kernel.products_of(ComputeSpec(precision="default")),
          "tf32x3": Products(1, ONE, "float32", PRESET.TF32_TF32_F32_X3), "tf32": Products(1, ONE, "float32", None),
          "float32": Products(1, ONE, "float32", jax.lax.Precision.HIGHEST), "bf16": Products(1, ONE)}


class Case(NamedTuple):
    """What is timed: a step from hidden states to hidden states, of given arrays."""

    about: dict[str, Any]
    step: Callable[..., jax.Array]
    rows: int
    width: int
    split: Products | None
    """What the head is prepared for before the steps; None: they take it as it is."""


def compute(width: int) -> ComputeSpec:
    """How a model of this width computes."""
    return ComputeSpec("bfloat16" if width >= 256 else "float32")


@functools.cache
def arrays(rows: int, width: int) -> tuple[jax.Array, ...]:
    """Hidden states, head (logits with a deviation of 2.5), words, and what blocks and masses may be."""
    key, dtype = jax.random.split(jax.random.key(rows + width), 4), compute(width).dtype
    head = jax.random.normal(key[1], (width, CLASSES)) * 2.5 / width**0.5
    blocks = CLASSES // sampling.BLOCK
    return (jax.random.normal(key[0], (rows, width)).astype(dtype), head.astype(dtype),
            jax.random.bits(key[2], (rows, 2), jnp.uint32), jax.random.normal(key[3], (blocks, rows)))


def by_xla(hidden: jax.Array, head: jax.Array, words: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Classes and laws, the plain way."""
    project = functools.partial(layers.dense, compute=compute(hidden.shape[1]), out=jnp.float32)
    return sampling.sample_head(hidden, head, words, 1.0, project)


def by_kernel(hidden: jax.Array, head: Weights, words: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The same by the kernels."""
    return head_kernel.sample(hidden, head, words, 1.0, compute(hidden.shape[1]))


def kept(hidden: jax.Array, found: jax.Array) -> jax.Array:
    """The hidden states, such that a loop needs what was found."""
    return hidden + (found[:, None].astype(jnp.float32) * 1e-30).astype(hidden.dtype)


def masses_step(split: Products, tiles: Tiles | None, hidden: jax.Array, head: Weights, *_: jax.Array) -> jax.Array:
    """The first kernel alone."""
    highest, mass = head_kernel.block_masses(hidden, head, 1.0, split, tiles)
    return kept(hidden, highest[0] + mass[0])


def speed() -> list[Case]:
    """Complete draws."""
    ways = {"xla": by_xla, "kernel": by_kernel}
    return [Case({"what": "speed", "way": name, "rows": rows, "width": width},
                 lambda h, w, words, _, way=way: kept(h, way(h, w, words)[0]), rows, width,
                 head_kernel.products_of(compute(width)) if name == "kernel" else None)
            for width, rows in itertools.product((32, 16, 64, 1024), (4096, 128, 1024, 16384))
            for name, way in ways.items()]


def parts() -> list[Case]:
    """The kernels one by one, and what stands against them."""
    found = []
    for rows, width in ((4096, 32), (4096, 16), (4096, 64), (128, 32), (128, 1024), (4096, 1024)):
        split = head_kernel.products_of(compute(width))

        def rest_by_xla(h: jax.Array, w: jax.Array, words: jax.Array, mass: jax.Array) -> jax.Array:
            highest = (mass + h[:, 0].astype(jnp.float32) * 1e-30).T
            block, _ = sampling._draw_block(highest, jnp.exp(highest), words[:, 0])
            columns = jnp.take(w.reshape(-1, CLASSES // 128, 128), block, axis=1, mode="clip")
            again = layers.dense(h[:, None], jnp.swapaxes(columns, 0, 1), compute(w.shape[0]), out=jnp.float32)
            return kept(h, sampling._draw_inside(sampling._within(again)[1][:, 0], words[:, 1]))

        def blocks(h: jax.Array, _: Weights, words: jax.Array, mass: jax.Array) -> jax.Array:
            highest = mass + h[:, 0].astype(jnp.float32) * 1e-30
            return kept(h, head_kernel.draw_blocks(highest, jnp.exp(highest), words[:, 0])[0])

        def classes(h: jax.Array, w: Weights, words: jax.Array, *_: jax.Array, warps: int = 2) -> jax.Array:
            block = (words[:, 0] % 384 + (h[:, 0] > 1e20)).astype(jnp.int32)
            return kept(h, head_kernel.draw_classes(h, w, block, words[:, 1], 1.0, warps))

        steps = {"masses": functools.partial(masses_step, split, None), "draw_blocks": blocks,
                 "draw_classes": classes, "draw_classes, 4 warps": functools.partial(classes, warps=4),
                 "rest by XLA": rest_by_xla}
        found += [Case({"what": "parts", "part": name, "rows": rows, "width": width}, step, rows, width,
                       None if step is rest_by_xla else split) for name, step in steps.items()]
    return found


def tiles() -> list[Case]:
    """The first kernel in other sizes, and with other products."""
    small, large, least = Tiles(64, warps=4, stages=2), Tiles(), Tiles(32, warps=4, stages=2)
    wanted = [(rows, width, name, sizes) for rows, width in itertools.product((128, 256, 512, 1024), (32, 16))
              for name, sizes in (("bf16x6", small), ("bf16x6", large), ("tf32x3", least))]
    wanted += [(rows, 1024, "bf16", Tiles(blocks=blocks, warps=warps, stages=3)) for rows, blocks, warps in (
        (128, 4, 8), (128, 4, 4), (1024, 4, 8), (1024, 4, 4), (4096, 4, 4), (4096, 8, 4), (4096, 2, 4))]
    wanted += [(16384, 32, "bf16x6", Tiles(blocks=blocks)) for blocks in (8, 24)]
    return [Case({"what": "tiles", "rows": rows, "width": width, "products": name, "tile": [t.rows, t.width],
                  "blocks": t.blocks, "warps": t.warps, "stages": t.stages},
                 functools.partial(masses_step, SPLITS[name], t), rows, width, SPLITS[name])
            for rows, width, name, t in wanted]


def compiled(case: Case, steps: int) -> Any:
    """A loop of steps."""
    def loop(hidden: jax.Array, head: jax.Array, *given: jax.Array) -> jax.Array:
        weights = head_kernel.prepared(head, compute(case.width), case.split) if case.split else head
        return jax.lax.fori_loop(0, steps, lambda _, h: case.step(h, weights, *given), hidden)

    shapes = jax.eval_shape(lambda: arrays.__wrapped__(case.rows, case.width))
    return jax.jit(loop).lower(*shapes).compile()


def microseconds(run: Any, case: Case, steps: int) -> float:
    """Of a step, the median of five loops."""
    given = arrays(case.rows, case.width)
    jax.block_until_ready(run(*given))
    times = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(run(*given))
        times.append(time.perf_counter() - began)
    return statistics.median(times) / steps * 1e6


def error(width: int, name: str) -> dict[str, Any]:
    """Largest differences of highest logits, masses (relative) and the law of the blocks from float64."""
    hidden, head, words, _ = arrays(128, width)
    exact = np.asarray(hidden, np.float64) @ np.asarray(head, np.float64)
    exact = exact.reshape(len(exact), -1, sampling.BLOCK)
    top = exact.max(-1)
    mass = np.exp(exact - top[..., None]).sum(-1)
    if name == "xla":
        logits = jax.jit(lambda h, w: layers.dense(h, w, compute(width), out=jnp.float32))(hidden, head)
        found = jax.jit(lambda x: sampling._within(x.reshape((*top.shape, -1))))(logits)
        highest, masses = np.asarray(found[0]), np.asarray(found[1].sum(-1))
    else:
        highest, masses = (np.asarray(x).T for x in jax.jit(
            lambda h, w: head_kernel.block_masses(h, head_kernel.prepared(w, compute(width), SPLITS[name]), 1.0,
                                                  SPLITS[name]))(hidden, head))

    def law(top: np.ndarray, mass: np.ndarray) -> np.ndarray:
        p = mass.astype(np.float64) * np.exp(top.astype(np.float64) - top.max(-1, keepdims=True))
        return p / p.sum(-1, keepdims=True)

    far = 0.5 * np.abs(law(highest, masses) - law(top, mass)).sum(-1).max()
    row = {"what": "error", "width": width, "products": name, "highest": float(np.abs(highest - top).max()),
           "mass": float(np.abs(masses / (mass * np.exp(top - highest)) - 1).max()), "total_variation": float(far)}
    if name == "xla":
        weights = head_kernel.prepared(head, compute(width))
        row["classes_as_by_kernel"] = float(jnp.mean(jax.jit(by_xla)(hidden, head, words)[0]
                                                     == jax.jit(by_kernel)(hidden, weights, words)[0]))
    return row


def guarded(about: dict[str, Any], call: Callable[[], dict[str, Any]]) -> None:
    """Prints a row, or the error that came instead."""
    try:
        row = about | call()
    except Exception as failed:  # noqa: BLE001  one size is not to end the others, whatever a compiler raises
        row = about | {"error": f"{type(failed).__name__}: {str(failed)[:700]}"}
    print(json.dumps(row), flush=True)


def timed(cases: list[Case], given: argparse.Namespace, end: float) -> None:
    """Compiles the cases side by side, then times one after the other, until the end."""
    def one(case: Case, program: concurrent.futures.Future[Any]) -> dict[str, Any]:
        return {"us": round(microseconds(program.result(), case, given.steps), 1)}

    with concurrent.futures.ThreadPoolExecutor(given.threads) as pool:
        programs = [pool.submit(compiled, case, given.steps) for case in cases]
        left = concurrent.futures.wait(programs, timeout=max(0.0, end - time.perf_counter())).not_done
        for program in left:
            program.cancel()
    for case, program in zip(cases, programs, strict=True):
        if program.cancelled() or time.perf_counter() > end:
            print(json.dumps(case.about | {"error": "no time left"}), flush=True)
        else:
            guarded(case.about, functools.partial(one, case, program))


def main() -> None:
    """Runs what the flags say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", default="error,speed,parts,tiles")
    parser.add_argument("--seconds", type=float, default=85, help="after which no further case begins")
    parser.add_argument("--steps", type=int, default=20, help="of a timed loop")
    parser.add_argument("--threads", type=int, default=12, help="that compile")
    given = parser.parse_args()
    began = time.perf_counter()
    print(json.dumps({"device": jax.devices()[0].device_kind, "jax": jax.__version__}), flush=True)
    what = given.what.split(",")
    if "error" in what:
        few = ("xla", "bf16x6", "tf32x3")
        for width, names in ((32, (*few, "bf16x3", "tf32", "float32")), (16, few), (64, few), (1024, ("xla", "bf16"))):
            for name in names:
                guarded({"what": "error", "width": width, "products": name}, functools.partial(error, width, name))
    kinds = (("speed", speed), ("parts", parts), ("tiles", tiles))
    for name, of in kinds:
        if name in what:
            timed(of(), given, began + given.seconds)
    print(json.dumps({"seconds": round(time.perf_counter() - began, 1)}))


if __name__ == "__main__":
    main()
