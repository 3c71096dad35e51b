"""Selects an unused ROS domain."""

from __future__ import annotations

import random
import socket

from textdifuse_ros.errors import InputError

LAST_DOMAIN = 101  # the ports of higher domains are in the range of Linux's outgoing connections
# UDP ports of the RTPS standard, from 7400 + 250 * domain: offset 0 is discovery, shared by all participants of the
# domain; the first participant listens at offset 10, the second at 12.
FIRST_PORT, PORTS_PER_DOMAIN = 7400, 250
OFFSETS = (0, 10, 12)


def free_domain() -> int:
    """Return a random domain without participants on this machine.

    A robot's node in the same domain could answer our requests, or obey them.

    :raises InputError: every domain is in use
    """
    for domain in random.SystemRandom().sample(range(1, LAST_DOMAIN + 1), LAST_DOMAIN):
        if not is_taken(domain):
            return domain
    remedy = "stop some of the ROS programs on this machine"
    raise InputError("the ROS domain", f"one of 1 to {LAST_DOMAIN} without a node", "nodes in each of them", remedy)


def is_taken(domain: int) -> bool:
    """Return whether a process on this machine uses a port of ``domain``, shared or not."""
    for offset in OFFSETS:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", FIRST_PORT + PORTS_PER_DOMAIN * domain + offset))
            except OSError:
                return True
    return False
