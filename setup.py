"""Tells setuptools that the top folders are packages below `understudy`; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

FOLDERS = ("models", "producer", "worker")


def below(folder: str) -> list[str]:
    return [folder, *(f"{folder}.{package}" for package in find_packages(folder))]


setup(
    packages=["understudy"] + [f"understudy.{name}" for folder in FOLDERS for name in below(folder)],
    package_dir={"understudy": "understudy"} | {f"understudy.{folder}": folder for folder in FOLDERS},
)
