"""Imports a published order model into a checkpoint of marsjax. The config: configs/import_checkpoint.py.

Its keys are flags too: --source=FOLDER_OR_REPOSITORY --output=FOLDER [--validation=FOLDER] ...
"""

import contextlib
import dataclasses
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.checkpoint import importer, validation
from marsjax.checkpoint import safetensors as safetensors_layout
from marsjax.checkpoint.folder import Checkpoint
from marsjax.checkpoint.validation import Scores
from marsjax.core.errors import InputError
from marsjax.core.specs import ComputeSpec
from marsjax.experiments import config as configs
from marsjax.experiments import launcher, run_folder

NAME = "import_checkpoint"


def main(config: ConfigDict) -> int:
    """Runs an import and prints its report."""
    if not config.source:
        raise InputError("config.source: expected a folder, or owner/name on the hub (--source=...), got ''")
    began = time.perf_counter()
    found = importer.import_published(
        config.source, config.revision or None, config.dtype, ratio_embeddings=config.ratio_embeddings,
        converters=config.converters or None, samples=config.validation or None,
        ignore_keys=config.ignore_keys, max_samples=config.max_samples)
    output = run_folder.of_config(config, "import_checkpoint")
    with contextlib.ExitStack() as folders:
        folder = folders.enter_context(output)
        exported = (folders.enter_context(run_folder.output_folder(config.export, config.overwrite, "config.export"))
                    if config.export else None)
        scores = _scores(config, found)
        about = {**found.about, "validation": dataclasses.asdict(scores) if scores else None}
        checkpoint_folder.write(folder, found.model, found.converters, about)
        if exported:
            safetensors_layout.write(exported, found.model, found.about["import"]["dropout"])
    print("\n".join(_report(found, scores)))
    print(f"checkpoint in {output.path} after {time.perf_counter() - began:.1f} s"
          + (f"; exported to {config.export}" if config.export else ""))
    return 0


def _scores(config: ConfigDict, found: Checkpoint) -> Scores | None:
    """Of the samples that were named, or that lie with the model."""
    folder = config.validation or found.about["import"]["samples"]
    if not folder:
        return None
    model = found.model.replace(compute=ComputeSpec(dtype=config.dtype))
    return validation.validate(dataclasses.replace(found, model=model), folder, config.max_samples)


def _report(found: Checkpoint, scores: Scores | None) -> list[str]:
    report: dict[str, Any] = found.about["import"]
    spec, count = found.model.spec, sum(x.size for x in jax.tree.leaves(found.model))
    lines = [f"{found.about['source']}" + (f" at {found.about['revision']}" if found.about["revision"] else ""),
             f"model: {spec.layers} layers of width {spec.embed_dim}, {spec.heads} heads, {spec.context_length} "
             f"orders, {spec.tokens.classes} classes; {count} parameters, {found.model.norm.weight.dtype}",
             f"tensors: {len(report['used'])} used; stored and never read: {', '.join(report['unused']) or 'none'}"]
    if report["ratio_tables"]:
        losses = ", ".join(f"{name} {loss:.4f}" for name, loss in report["losses"].items())
        lines.append(f"two tables of unknown use ({', '.join(report['ratio_tables'])}): {report['ratio_embeddings']}"
                     + (f"; nats a token: {losses}" if losses else ""))
    if report["ignored_keys"]:
        lines.append(f"keys of config.json without effect: {', '.join(report['ignored_keys'])}")
    lines += [f"converters: {len(found.converters)}", *report["notes"]]
    if scores:
        agreement = "" if scores.agreement is None else (f", {scores.agreement:.2%} of {scores.compared} greedy "
                                                         "predictions as published")
        lines.append(f"validation: loss {scores.loss:.4f} nats, top-1 {scores.top1:.2%} on {scores.samples} samples"
                     + agreement)
    return lines


def as_config_flags(argv: Sequence[str]) -> list[str]:
    """Command line with plain flags (`--source=x`, `--source x`, `--overwrite`) -> the launcher's."""
    keys = set(configs.load(configs.named_configs()[NAME]))
    out, is_plain = [], False
    words = iter(argv)
    for word in words:
        flag, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or flag not in keys:
            out.append(word)
            continue
        is_plain = True
        if not equals:
            value = "true" if flag == "overwrite" else next(words, "")
        out.append(f"--config.{flag}={value}")
    has_config = any(word.split("=")[0] == "--config" for word in out)
    return out if has_config or not is_plain else [f"--config={NAME}", *out]


if __name__ == "__main__":
    launcher.run(NAME, main, as_config_flags(sys.argv[1:]))
