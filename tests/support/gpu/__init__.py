"""What `tests/gpu/gpu_check.py` checks, on what models, and which packages each check needs."""
