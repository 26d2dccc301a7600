#!/usr/bin/env bash
# Make ~/.cache/thinkimg/lmms-eval: lmms-eval in an environment of its own (it pins math-verify 0.1 and an old av), once.
# torch and transformers are of our versions; its evaluator reaches into filelock 3.18. The last line is the path of its Python.
set -euo pipefail
cd "$(dirname "$0")/.."
. hack/own_environment.sh
own_environment lmms-eval lmms-eval==0.7.3 torch==2.13.0 torchvision==0.28.0 "transformers==5.17.*" "filelock==3.18.*"
