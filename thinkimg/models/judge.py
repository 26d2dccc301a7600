"""The model that a manifest names as a judge."""

import os

from thinkimg.api import Judge
from thinkimg.errors import UserError
from thinkimg.models.api import ApiModel

CONCURRENCY = 16
"""Questions to one judge under way at once, per process."""


def judge_model(judge: Judge) -> ApiModel:
    """Raises `UserError`: the environment has no such variable as the judge's key is to stand in."""
    key = None
    if judge.api_key_variable is not None:
        key = os.environ.get(judge.api_key_variable)
        if not key:
            raise UserError(f"the variable {judge.api_key_variable} with the judge's key is not set", "judge")
    return ApiModel(judge.base_url, judge.model, key, max_concurrency=CONCURRENCY)
