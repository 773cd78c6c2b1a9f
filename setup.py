from setuptools import find_packages, setup

setup(
    name="robust_saliency",
    version="0.1.0",
    description="Train image classifiers whose saliency maps can be trusted, and measure whether they can.",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["robust_saliency", "robust_saliency.*"]),
    package_data={"robust_saliency.report": ["*.css", "*.html", "*.js"]},
    install_requires=[
        "absl-py>=2.1",
        "chex>=0.1.90",
        "flax>=0.12.8",
        "grain>=0.2.18",
        "importlib_resources",  # tensorflow-datasets needs it, and does not say so
        "jax>=0.10",
        "jinja2>=3.1",
        "matplotlib>=3.9",
        "ml-collections>=1.0",
        "numpy>=2.0",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8",
        "pillow>=10",
        "pyarrow>=18",
        "scipy>=1.13",
        "tensorflow-datasets>=4.9.10",
        "tensorstore",  # comes with orbax-checkpoint; checkpoint.py reads with it
        "tqdm>=4.66",
    ],
    extras_require={
        "test": [
            "equinox>=0.13",  # of an example, as safetensors is
            "hypothesis>=6.100",
            "pandas>=2.2",
            "pytest>=8",
            "pytest-xdist>=3.5",
            "ruff>=0.9",
            "safetensors>=0.5",
        ],
        "cuda": ["jax[cuda12]>=0.10"],
        "tpu": ["jax[tpu]>=0.10"],
        "prepare": ["tensorflow-cpu>=2.18"],
    },
)
