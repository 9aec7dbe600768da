"""The decoder equals transformers' LlamaForCausalLM on fresh random weights (needs `pip install -e '.[parity]'`)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core.specs import ModelSpec, TokenSpec
from marsjax.model.llama import OrderModel
from tests.model.test_llama import random_params, random_tokens

torch = pytest.importorskip("torch", reason="parity with transformers: torch is not installed")
transformers = pytest.importorskip("transformers", reason="parity with transformers: it is not installed")

pytestmark = pytest.mark.optimised

BINS = TokenSpec(4, 4, 4)
RELATIVE = 2e-5
LENGTHS = (1, 37, 1024)
"""Logits after every token are compared, so the last one covers all contexts up to it."""


def llama(model: OrderModel) -> torch.nn.Module:
    """The reference's decoder with the weights of a model."""
    spec, of = model.spec, model.weights()
    config = transformers.LlamaConfig(
        vocab_size=spec.tokens.classes, hidden_size=spec.embed_dim, intermediate_size=4 * spec.embed_dim,
        num_hidden_layers=spec.layers, num_attention_heads=spec.heads, max_position_embeddings=spec.context_length,
        rms_norm_eps=1e-6, tie_word_embeddings=False, attn_implementation="eager")
    module = transformers.LlamaForCausalLM(config).eval()
    d = spec.embed_dim
    tensors = {"model.embed_tokens.weight": np.zeros((spec.tokens.classes, d)), "model.norm.weight": of["norm"],
               "lm_head.weight": of["head"].T}
    for i in range(spec.layers):
        q, k, v = of["layers.qkv"][i].reshape(d, 3, d).transpose(1, 2, 0)
        gate, up = of["layers.gate_up"][i].transpose(1, 2, 0)
        tensors |= {f"model.layers.{i}.{name}.weight": x for name, x in {
            "input_layernorm": of["layers.attention_norm"][i], "post_attention_layernorm": of["layers.mlp_norm"][i],
            "self_attn.q_proj": q, "self_attn.k_proj": k, "self_attn.v_proj": v,
            "self_attn.o_proj": of["layers.out"][i].reshape(d, d).T, "mlp.gate_proj": gate, "mlp.up_proj": up,
            "mlp.down_proj": of["layers.down"][i].T}.items()}
    found = module.load_state_dict({name: torch.tensor(np.array(x, np.float32)) for name, x in tensors.items()})
    assert not found.missing_keys and not found.unexpected_keys
    return module


@pytest.mark.parametrize(("layers", "heads", "size"), [
    (1, 2, 8), (1, 1, 64), (2, 4, 16), (3, 4, 8), (3, 2, 16)])
def test_logits_equal_llama(layers: int, heads: int, size: int) -> None:
    spec = ModelSpec(heads * size, layers, heads, 1024, BINS)
    model = random_params(spec, seed=layers + size, scale=1 / np.sqrt(heads * size))
    module = llama(model)
    embed, logits = jax.jit(lambda model, x: model.embedding(x)), jax.jit(lambda model, x: model(x))
    for length in LENGTHS:
        tokens = random_tokens(np.random.default_rng(length), (1, length), BINS)
        with torch.no_grad():
            x = torch.tensor(np.array(embed(model, tokens)))
            expected = module(inputs_embeds=x, use_cache=False).logits.numpy()
        got = np.asarray(logits(model, jax.tree.map(jnp.asarray, tokens)))
        gap = np.linalg.norm(got - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
        assert got.shape == expected.shape
        assert gap.max() < RELATIVE, f"length {length}: relative error {gap.max()}"
