"""The full parameters of ``player_node`` and ``recorder_node``; free of ROS."""

from __future__ import annotations

from dataclasses import dataclass

from textdifuse_ros.config import parameter
from textdifuse_ros.config_nodes import PlayerConfig, RecorderConfig


@dataclass(frozen=True)
class PlaybackConfig(PlayerConfig):
    """What the ``player_node`` runs by."""

    topics: str = parameter(
        "", "Other topics of the recording to play under their own names, separated by commas; * plays them all."
    )
    pairs: int = parameter(0, "End after so many pairs of pictures; 0 plays to the end, or for ever in a loop.", low=0)
    summary: str = parameter("", "File for the counts that are printed at the end, as JSON; empty writes none.")


@dataclass(frozen=True)
class RecordingConfig(RecorderConfig):
    """What the ``recorder_node`` runs by."""

    summary: str = parameter("", "File for the counts that are printed at the end, as JSON; empty writes none.")
