"""Turns a published order model (config.json + model.safetensors) into a checkpoint of marsjax, and checks it.

    python -m marsjax.experiments.import_checkpoint --config=configs/import_checkpoint.py:Don-Don/mars-order-2m
    python -m marsjax.experiments.import_checkpoint --config=import_checkpoint:path/to/folder,output=checkpoints/mine
    python -m marsjax.experiments.import_checkpoint --source=path/to/folder --output=checkpoints/mine

Argument: the source first (a folder, or owner/name on the Hugging Face Hub), then key=value pairs. Takes seconds for
the published models, and memory for twice the weights.
"""

from ml_collections import ConfigDict

from marsjax.experiments.config import HELP, parse_arg


def get_config(arg: str | None = None) -> ConfigDict:
    """The config of an import; see the top of the file for `arg`."""
    first, _, rest = (arg or "").partition(",")
    if "=" in first or first.strip() == HELP:
        first, rest = "", arg or ""
    chosen = parse_arg(rest, source=first.strip(), output="", revision="", converters="", validation="",
                       ratio_embeddings="auto", dtype="float32", overwrite=False, export="")
    config = ConfigDict()
    config.source = chosen.source  # a folder with config.json and model.safetensors, or owner/name on the hub
    config.output = chosen.output  # a new folder; empty: runs/import_checkpoint, numbered where that is taken
    config.overwrite = chosen.overwrite  # whether an earlier output of marsjax is replaced
    config.revision = chosen.revision  # commit, branch or tag on the hub; empty: the newest, whose commit is recorded
    config.converters = chosen.converters  # folder of bin converters; empty: converters/ in or beside the source
    config.validation = chosen.validation  # folder of samples; empty: validation-samples/ likewise
    config.max_samples = 256  # samples to look at; 0: all
    config.ratio_embeddings = chosen.ratio_embeddings  # two tables of unknown use: auto, ignore, sum or swapped
    config.ignore_keys = ()  # unknown keys of config.json to pass over
    config.dtype = chosen.dtype  # of the parameters: float32 or bfloat16
    config.export = chosen.export  # a new folder for config.json and model.safetensors made from it, or none
    return config
