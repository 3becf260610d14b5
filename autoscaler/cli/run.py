"""`tidegate run`: loads the configuration, sets the log up, and runs the daemon."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import msgspec
import structlog

from autoscaler.daemon import run as run_daemon
from autoscaler.settings.config import Log, LogFormat
from autoscaler.settings.load import load


def run(config: Path, kubeconfig: Path | None = None) -> None:
    """Runs until stopped. Raises ConfigError when the configuration is wrong, SystemExit when the daemon failed."""
    loaded = load(config, os.environ)
    _set_up_log(loaded.config.log)
    for warning in loaded.warnings:
        structlog.get_logger().warning("config.warned", warning=warning)
    if status := asyncio.run(run_daemon(loaded, config, kubeconfig)):
        raise SystemExit(status)


def _set_up_log(settings: Log) -> None:
    """The direct chain: JSON lines, or text on a terminal."""
    terminal = sys.stdout.isatty() if settings.format is LogFormat.AUTO else settings.format is LogFormat.CONSOLE
    encoder = msgspec.json.Encoder(enc_hook=str)
    renderer = (
        structlog.dev.ConsoleRenderer()
        if terminal
        else structlog.processors.JSONRenderer(serializer=lambda event, **_: encoder.encode(event).decode())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(settings.level.value),
        cache_logger_on_first_use=False,  # the level may change while it runs
    )
