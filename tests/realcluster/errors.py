"""What can go wrong around the real control plane. Each class says what a test run does about it.

ClusterError
├── AssetError      a program is missing or cannot be built: tests skip (fail under TIDEGATE_REQUIRE_CLUSTER=1)
│   └── VariableError   a variable names a program that is not there: the run ends at once, for that is a mistake
├── StartError      a process of the control plane did not become ready: tests fail
└── WaitError       something awaited did not happen in time: that test fails
"""

from __future__ import annotations


class ClusterError(Exception):
    """Base class."""


class AssetError(ClusterError):
    """A program of the control plane is missing and cannot be built."""


class VariableError(AssetError):
    """A variable that names a program points nowhere; the message says which, and what to do."""


class StartError(ClusterError):
    """A process ended or was not ready before its deadline; the message ends with its last log lines."""


class WaitError(ClusterError, AssertionError):
    """`Cluster.wait_for` gave up; the message says what was awaited and the last value seen."""
