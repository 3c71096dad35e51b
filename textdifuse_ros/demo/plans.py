"""What the programs :mod:`textdifuse_ros.nodes.demo` and :mod:`textdifuse_ros.nodes.endurance` have to run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RunPlan:
    """What both programs have to run.

    :ivar output: folder for the results; logs go to ``logs/`` in it
    :ivar node: parameters of fusion_node
    :ivar player: parameters of player_node
    :ivar profile: Fast DDS profile file; empty for none
    :ivar parent: process id of the program that starts this one; when that ends, this one ends as well
    """

    output: str
    node: dict[str, Any]
    player: dict[str, Any]
    profile: str = ""
    parent: int = 0


@dataclass(frozen=True)
class DemoPlan(RunPlan):
    """The plan of the demo.

    :ivar pairs: number of pairs that the player publishes
    :ivar record: topics of fusion_node to record
    :ivar text_later: ``target_text`` after half of the pairs; empty for no change
    """

    pairs: int = 0
    record: list[str] = field(default_factory=list)
    text_later: str = ""


@dataclass(frozen=True)
class EndurancePlan(RunPlan):
    """The plan of the endurance run.

    :ivar seconds: how long to play [s]
    """

    seconds: float = 0.0
