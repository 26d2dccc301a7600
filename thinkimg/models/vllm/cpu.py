"""What vLLM needs on a machine without a GPU. Import this before vllm: it reads its environment then."""

import os

import torch

DEFAULTS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the trainer's threads live in this process too
    "VLLM_NO_USAGE_STATS": "1",
}


def prepare_cpu() -> None:
    """Set vLLM's environment where the user did not, and let its layers compute with the weights they hold.

    vLLM's CPU backend packs the weights after loading. Of linear layers it drops the original, so that a later weight
    sync finds nothing to write to (`'Parameter' object has no attribute 'weight_loader'`); of the LM head it keeps it,
    but goes on computing with the packed copy, so that a sync silently changes nothing. Idempotent; does nothing where
    there is a GPU.
    """
    if torch.cuda.is_available():
        return
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

    for method in (UnquantizedLinearMethod, UnquantizedEmbeddingMethod):
        method.process_weights_after_loading = _keep_weight


def _keep_weight(method: object, layer: torch.nn.Module) -> None:
    layer.cpu_linear = torch.nn.functional.linear  # type: ignore[assignment]
