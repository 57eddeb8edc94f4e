"""The log as a subscriber of the event stream: the line that each event has for it."""

from __future__ import annotations

import logging
from typing import Final

from tunnel.events import Event, EventStream, Level, Subscriber

#: The loggers that events go to, and nothing else.
LOGGERS: Final = frozenset({"tunnel.server", "tunnel.client"})
_LEVELS: Final[dict[Level, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def log_event(event: Event) -> None:
    """Write the event's line, if it has one."""
    if event.text:
        logger = logging.getLogger(event.logger)
        logger.log(_LEVELS[event.level], event.text, extra=event.details())


def logged_events(*subscribers: Subscriber) -> EventStream:
    """A stream whose events are in the log, and told to these as well."""
    return EventStream(log_event, *subscribers)
