"""Installs the folder kernels/ as the package fastgan.kernels; everything else stands in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["fastgan", "fastgan.*"]), "fastgan.kernels"],
    package_dir={"fastgan.kernels": "kernels"},
    package_data={"fastgan": ["py.typed", "presets/*.yaml", "data/digits/*"]},
)
