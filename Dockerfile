# The node on ROS 2 Jazzy (Ubuntu 24.04).
#
#   docker build -t textdifuse_ros .
#   docker run --rm --net=host --ipc=host textdifuse_ros visible:=/camera/color/image_raw infrared:=/thermal/image_raw
#
# For a GPU: --build-arg TORCH="torch" and `docker run --gpus all` with the NVIDIA container toolkit.
FROM ros:jazzy-ros-base

# pip arguments; the default is the CPU build, a tenth of the size of the CUDA build.
ARG TORCH="torch --index-url https://download.pytorch.org/whl/cpu"

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV DEBIAN_FRONTEND=noninteractive \
    PIP_BREAK_SYSTEM_PACKAGES=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

WORKDIR /ws

# The dependencies in package.xml come from apt, the others from pip. PyTorch needs a newer setuptools than Ubuntu's, which
# pip cannot uninstall, and colcon one before 80; numpy must stay the version that cv_bridge is built against.
COPY package.xml src/textdifuse_ros/package.xml
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-pip \
    && rosdep update --rosdistro "$ROS_DISTRO" \
    && rosdep install --from-paths src --ignore-src --rosdistro "$ROS_DISTRO" --dependency-types exec -y \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -c 'import numpy; print(f"numpy=={numpy.__version__}")' > constraints.txt \
    && python3 -m pip install --ignore-installed 'setuptools>=77.0.3,<80' typing-extensions \
    && python3 -m pip install ${TORCH} \
    && python3 -m pip install --constraint constraints.txt safetensors rosbags tifffile av

COPY . src/textdifuse_ros
RUN source "/opt/ros/$ROS_DISTRO/setup.bash" && colcon build --packages-select textdifuse_ros

# The base image's ros_entrypoint.sh sources only /opt/ros; this one also sources the workspace.
COPY docker/entrypoint.sh /textdifuse_entrypoint.sh
ENTRYPOINT ["/textdifuse_entrypoint.sh"]
