"""Packaging of marsjax; the settings of the tools are in pyproject.toml.

The folders `configs/` and `checkpoints/` lie beside the package in a checkout, where people read and edit them, and
inside it in a wheel (`marsjax/packaged/`), so that a config or a checkpoint is found by its name from anywhere. They
are mapped below a name of their own: code that is mapped from elsewhere into `marsjax` is not importable from the
root of a checkout.
"""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "marsjax" / "__init__.py").read_text(encoding="utf-8"))
if VERSION is None:
    raise ValueError("marsjax/__init__.py: expected a line __version__ = \"...\"")

# A checkout may have no checkpoints yet.
PACKAGED = {f"marsjax.packaged.{name}": name for name in ("configs", "checkpoints") if (ROOT / name).is_dir()}
TEST = ["pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "build>=1.2"]

setuptools.setup(
    name="marsjax",
    version=VERSION.group(1),
    description="Whole financial markets as arrays: order books, agents and an order model in one jitted step, in JAX",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The marsjax authors",
    license="MIT",
    license_files=["LICENSE"],
    keywords=["limit order book", "market simulation", "generative models", "market microstructure", "JAX"],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Financial and Insurance Industry",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Office/Business :: Financial :: Investment",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[*setuptools.find_packages(include=["marsjax", "marsjax.*"]), *PACKAGED],
    package_dir=PACKAGED,
    package_data={"marsjax": ["py.typed"], **{package: ["**/*", "**/.*"] for package in PACKAGED}},
    exclude_package_data={package: ["**/__pycache__/*"] for package in PACKAGED},
    install_requires=[
        "absl-py>=2.1",
        "chex>=0.1.90",
        "flax>=0.12",
        "huggingface_hub>=0.30",
        "jax>=0.10",
        "matplotlib>=3.9",
        "ml_collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.11.25",
        "pandas>=2.2",
        "safetensors>=0.5",
        "scipy>=1.15",
        "tqdm>=4.66",
        "zstandard>=0.23",
    ],
    entry_points={"console_scripts": ["marsjax = marsjax.experiments.command:main"]},
    extras_require={
        "cuda12": ["jax[cuda12]>=0.10"],
        "cuda13": ["jax[cuda13]>=0.10"],
        "databento": ["databento-dbn>=0.30"],
        "demo": ["streamlit>=1.52"],  # the dashboard
        "test": TEST,
        "lint": ["ruff>=0.9", "mypy>=1.15", "pandas-stubs>=2.2", "types-tqdm>=4.66", *TEST],
        "parquet": ["pyarrow>=17"],
        "serve": ["ray[serve]>=2.40", "starlette>=0.40", "uvicorn>=0.30", "prometheus_client>=0.20", "pyarrow>=17"],
        "ray": ["ray>=2.40", "pyarrow>=17"],  # fleets of workers
        "rl": ["gymnax>=1.0.1", "gymnasium>=1.1"],  # spaces of the environments, Gymnasium's own
        "parity": ["torch>=2.6", "transformers>=4.50"],
        "docs": ["mkdocs-material>=9.6", "mkdocstrings[python]>=0.28", "ruff>=0.9"],  # the pages
        "notebooks": ["nbclient>=0.10", "nbformat>=5.10", "ipykernel>=6.29"],  # runs those of colab/
        "browser": ["playwright>=1.50"],  # tests the dashboard in a Chromium that is there
    },
)
