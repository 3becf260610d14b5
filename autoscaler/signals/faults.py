"""Why a page, or a series on it, gives no value: a small closed set of short reasons.

They stand in readings, in the report of each cycle and (those of whole pages) as a label of our own metrics, so they
never carry text that a pod chose. Readings add the engine and the series that it lacks, in the dictionary's words.
"""

from __future__ import annotations

from enum import StrEnum


class Fault(StrEnum):
    """Reasons that concern the whole page come first, those of a single series after them."""

    NO_PAGE_YET = "no page yet"
    OVERDUE = "overdue"  # the last page was good, but it is old: the scraper is late
    BAD_ADDRESS = "bad address"  # the path does not begin with "/", the address is no IP, the port is out of range
    REFUSED = "refused"  # nobody listens there
    UNREACHABLE = "unreachable"  # no route, name not found, TLS
    TIME_OUT = "time-out"
    CUT_SHORT = "cut short"  # the connection ended before the page did
    TOO_LARGE = "too large"
    NOT_TEXT = "not text"  # not HTTP, or a compressed page although we asked for none

    NO_CREDENTIALS = "no credentials"  # a file of ours with a token, password or certificate cannot be used
    NO_ANSWER = "not an answer of Prometheus"
    QUERY_REFUSED = "query refused"
    NO_SAMPLES = "no samples"  # Prometheus answers, and has no series of this pod
    PARTIAL_ANSWER = "partial answer"  # Prometheus warns that series may be missing

    NO_PROMETHEUS = "needs a Prometheus: set prometheus.url in the configuration"
    NO_ANSWER_YET = "no answer yet"
    NO_SUCH_QUERY = "no such query in the configuration"
    QUERY_TOO_LONG = "query too long"  # with the names of all pods in it
    SEVERAL_SERIES = "more than one series; aggregate the query, e.g. with sum() or max()"

    UNREADABLE = "unreadable"  # our own error while reading it; the log has it

    NO_SUCH_SERIES = "no such series"
    NOT_A_NUMBER = "not a number"  # NaN
    INFINITE = "infinite"
    NEGATIVE = "negative"
    ABSURD = "absurdly large"  # e.g. an unsigned counter that went below zero, or a share that is a percentage
    MALFORMED = "malformed"  # a line of the series cannot be read
    PRINTED_TWICE = "printed twice"  # one series, two samples on one page: nobody can say which is true
    DATED_OTHERWISE = "dated otherwise"  # by its own timestamp a sample is of another time than ours
    TOO_MANY_SERIES = "too many series"
    UNKNOWN_ENGINE = "unknown engine"
    ONE_PAGE_ONLY = "one page only"  # a rate needs two


def http_fault(status: int) -> str:
    """An answer other than 200: http_fault(500) == "http 500"."""
    return f"http {status}"
