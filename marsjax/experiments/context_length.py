"""How predictions depend on the length of the context: see configs/context_length.py."""


import jax
import numpy as np
from ml_collections import ConfigDict

from marsjax.core.specs import ModelSpec
from marsjax.experiments import launcher, markets, run_folder, setup
from marsjax.experiments.run_folder import write_json
from marsjax.studies import context_length
from marsjax.studies.context_length import CacheComparison, TrainingSpec


def main(config: ConfigDict) -> int:
    """Trains, compares and writes metrics.json."""
    spec = ModelSpec(embed_dim=config.embed_dim, layers=config.layers, heads=config.heads,
                     context_length=config.context_length)
    training = TrainingSpec(config.steps, config.batch, config.peak_rate, config.dtype, config.seed)
    feeds = markets.open_feeds(config)
    market, output = markets.one_market(config, feeds), run_folder.of_config(config, "context_length")
    with output as folder:
        parts, found = context_length.tokens(market, spec.tokens, feeds, config.held_out)
        refused = {name: markets.refused(name, each) for name, each in found.items()}
        model, curve = context_length.train(spec, training, parts)
        rng, held = np.random.default_rng(config.seed), parts[1]
        windows = context_length.stretches(rng, held, config.windows, spec.context_length + 1)
        by_length = context_length.by_length(model, windows, config.lengths)
        decoded = context_length.stretches(rng, held, config.trajectories, spec.context_length + config.decoded)
        cache = context_length.by_cache(model, decoded, setup.spec_of(CacheComparison, config))
        write_json(folder / "metrics.json", {
            "device": jax.devices()[0].device_kind, "jax": jax.__version__, "config": config, "training": curve,
            "marginal_loss": context_length.marginal_loss(spec.tokens, parts), "by_length": by_length,
            "refresh": cache, "feeds": {name: record for name, (record, _) in refused.items()}})
    for row in by_length:
        print(f"context {row['length']:>5}: loss {row['loss']:.4f} nats, total variation to the full window "
              f"{row['total_variation']:.4f}")
    print(f"refresh every {config.refresh_every}: loss {cache['loss']:.4f} nats, full window {cache['full_loss']:.4f}, "
          f"total variation {cache['total_variation']:.4f} ({cache['compared']} predictions)")
    print(run_folder.told(output))
    return launcher.finish([problem for _, lost in refused.values() for problem in lost])


if __name__ == "__main__":
    launcher.run("context_length", main)
