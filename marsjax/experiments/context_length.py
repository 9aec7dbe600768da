"""How predictions depend on the length of the context: see configs/context_length.py."""


import jax
import numpy as np
from ml_collections import ConfigDict

from marsjax.core.sessions import chinese_session
from marsjax.core.specs import MarketSpec, ModelSpec
from marsjax.data import sources
from marsjax.experiments import launcher, setup
from marsjax.experiments.run_folder import output_folder, write_json
from marsjax.studies import context_length
from marsjax.studies.context_length import CacheComparison, TrainingSpec


def main(config: ConfigDict) -> int:
    """Trains, compares and writes metrics.json."""
    spec = ModelSpec(embed_dim=config.embed_dim, layers=config.layers, heads=config.heads)
    training = TrainingSpec(config.steps, config.batch, config.peak_rate, config.dtype, config.seed)
    market = MarketSpec(capacity=config.capacity, accounts=1, session=chinese_session())
    with output_folder(config.output, config.overwrite) as folder:
        parts = context_length.tokens(market, spec.tokens, sources.open_days("sse", config.folder), config.held_out)
        model, curve = context_length.train(spec, training, parts)
        rng, held = np.random.default_rng(config.seed), parts[1]
        windows = context_length.stretches(rng, held, config.windows, spec.context_length + 1)
        by_length = context_length.by_length(model, windows, config.lengths)
        decoded = context_length.stretches(rng, held, config.trajectories, spec.context_length + config.decoded)
        cache = context_length.by_cache(model, decoded, setup.spec_of(CacheComparison, config))
        write_json(folder / "metrics.json", {
            "device": jax.devices()[0].device_kind, "jax": jax.__version__, "config": config, "training": curve,
            "marginal_loss": context_length.marginal_loss(spec.tokens, parts), "by_length": by_length,
            "refresh": cache})
    for row in by_length:
        print(f"context {row['length']:>5}: loss {row['loss']:.4f} nats, total variation to the full window "
              f"{row['total_variation']:.4f}")
    print(f"refresh every {config.refresh_every}: loss {cache['loss']:.4f} nats, full window {cache['full_loss']:.4f}, "
          f"total variation {cache['total_variation']:.4f} ({cache['compared']} predictions)")
    return 0


if __name__ == "__main__":
    launcher.run("context_length", main)
