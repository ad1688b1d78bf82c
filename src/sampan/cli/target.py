"""The cluster that a command is about, as its flags `--name` and `--data-dir` say."""

from __future__ import annotations

import argparse

from sampan.client.client import Client
from sampan.cluster import supervision
from sampan.cluster.config import ClusterConfig
from sampan.cluster.paths import Paths
from sampan.cluster.up import admin_client


def paths(arguments: argparse.Namespace) -> Paths:
    """Where its files are, whether there is one or not. Raises SampanError if they are another user's."""
    return Paths.of(arguments.name, arguments.data_dir)


def existing(arguments: argparse.Namespace) -> tuple[Paths, ClusterConfig]:
    """Raises SampanError when there is none."""
    found = paths(arguments)
    return found, supervision.configuration(found)


def running(arguments: argparse.Namespace) -> tuple[Paths, ClusterConfig, Client]:
    """With a client that acts as its administrator. Raises SampanError when there is none, or it does not run."""
    found, config = existing(arguments)
    if not supervision.running(found):
        raise supervision.not_running(found)
    return found, config, admin_client(config, found)
