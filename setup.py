"""All metadata of the package, read by pip and by colcon alike.

It reads package.xml and no other file. A ``[project]`` table in pyproject.toml would break
``colcon build --symlink-install``.
"""

import xml.etree.ElementTree as ElementTree
from glob import glob
from pathlib import Path

from setuptools import find_packages, setup

MANIFEST = ElementTree.parse(Path(__file__).resolve().parent / "package.xml").getroot()
(MAINTAINER,) = MANIFEST.iter("maintainer")
NAME = MANIFEST.findtext("name")

ROS = [
    "ros-rclpy[fastrtps]==7.1.6",
    "ros-rmw-fastrtps-cpp==8.4.3",
    "ros-builtin-interfaces",
    "ros-jazzy-sensor-msgs",
    "ros-std-msgs",
    "ros-std-srvs",
    "ros-diagnostic-msgs",
    "ros-lifecycle-msgs",
    "ros-rcl-interfaces",
    "ros-rosgraph-msgs",
]
TEXT = ["transformers>=5"]
TRAIN = ["tensorboard>=2.16"]
RAY = ["ray>=2.30"]
DETECT = ["onnxruntime>=1.17"]
TEST = [
    *DETECT,
    *RAY,
    *TEXT,
    *TRAIN,
    "pytest>=8,<9",
    "hypothesis>=6.100",
    "onnx>=1.16",
    "scikit-image>=0.24",
    "colcon-common-extensions",
    "catkin-pkg",
    "setuptools>=64,<80",
    "wheel",
]
DEVELOP = ["ruff>=0.6", "mypy>=1.11", "import-linter>=2.1", "pre-commit>=3.5", "types-PyYAML", "types-tqdm"]

setup(
    name=NAME,
    version=MANIFEST.findtext("version"),
    description=MANIFEST.findtext("description"),
    maintainer=MAINTAINER.text,
    maintainer_email=MAINTAINER.get("email"),
    license=MANIFEST.findtext("license"),
    python_requires=">=3.11",
    packages=find_packages(include=[NAME, f"{NAME}.*"]),
    package_data={NAME: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", sorted(glob("launch/*.launch.py"))),
        (f"share/{NAME}/config", sorted(glob("config/*"))),
        (f"share/{NAME}/models", sorted(glob("models/*"))),
    ],
    install_requires=[
        "av>=11",
        "numpy>=1.26",
        "opencv-python-headless>=4.6",
        "pillow>=9.1",
        "pyyaml>=6",
        "backports.zstd; python_version < '3.14'",
        "lz4>=4",
        "rosbags>=0.11",
        "safetensors>=0.4.3",
        "tifffile>=2023.8.30",
        "torch>=2.5",
        "tqdm>=4.60",
    ],
    extras_require={
        "ros": ROS,
        "text": TEXT,
        "train": TRAIN,
        "ray": RAY,
        "detect": DETECT,
        "test": TEST,
        "dev": DEVELOP,
    },
    entry_points={
        "console_scripts": [
            f"textdifuse = {NAME}.cli.main:main",
            f"fusion_node = {NAME}.nodes.fusion_node:main",
            f"player_node = {NAME}.nodes.player_node:main",
            f"recorder_node = {NAME}.nodes.recorder_node:main",
        ]
    },
    zip_safe=True,
)
