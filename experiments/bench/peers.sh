#!/bin/bash
# The environment of the rollout bench's peer that cannot share ours (tunix wants safetensors < 0.8): 2 GB, a few minutes.
set -euo pipefail
PYTHON=${PYTHON:-python3}
test -x .bench-tunix/bin/python || "$PYTHON" -m venv .bench-tunix
.bench-tunix/bin/python -m pip install -q --disable-pip-version-check 'google-tunix==0.1.7' 'jax==0.10.2'
