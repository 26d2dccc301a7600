"""What vLLM needs on a machine without a GPU. Import this before vllm: it reads its environment then."""

import os

import torch

DEFAULTS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the trainer's threads live in this process too
    "VLLM_NO_USAGE_STATS": "1",
}


def prepare_cpu() -> None:
    """Set vLLM's environment where the user did not, and let its linear layers keep their weights.

    vLLM's CPU backend packs each linear layer's weight after loading and drops the original; a later weight sync then
    finds nothing to write to (`'Parameter' object has no attribute 'weight_loader'`). Idempotent; does nothing where
    there is a GPU.
    """
    if torch.cuda.is_available():
        return
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod

    UnquantizedLinearMethod.process_weights_after_loading = _keep_weight


def _keep_weight(method: object, layer: torch.nn.Module) -> None:
    layer.cpu_linear = torch.nn.functional.linear  # type: ignore[assignment]
