"""Does Prometheus answer, who is it, and does its clock agree with ours?"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from autoscaler.doctor.findings import Finding, Level
from autoscaler.signals.faults import Fault
from autoscaler.signals.prometheus import Access, Failure
from autoscaler.signals.range_reader import RangeReader

CLOCKS_APART_S: Final = 5.0
_OUTSIDE: Final = "from outside of the cluster: kubectl port-forward, and --prometheus http://127.0.0.1:9090"


async def check_prometheus(reader: RangeReader, access: Access) -> list[Finding]:
    """The first finding is an error where nothing else can be asked."""
    before_s = time.time()
    answer = await reader.query("time()")
    after_s = time.time()
    if isinstance(answer, Failure):
        detail = f" ({answer.detail})" if answer.detail else ""
        return [Finding(Level.ERROR, "Prometheus", access.url, answer.reason + detail, fix_of(answer, access))]
    version = await reader.version()
    name = f"version {version}" if isinstance(version, str) and version else "of a version that it does not tell"
    found = [Finding(Level.OK, "Prometheus", access.url, f"answers, {name}{_shown_who(access)}")]
    if answer.warnings:
        fix = "samples of such answers lower nothing: see to the stores that it names"
        found.append(Finding(Level.WARNING, "Prometheus", access.url, f"warns: {answer.warnings[0]}", fix))
    its_s = answer.at_s or before_s
    apart_s = max(before_s - its_s, its_s - after_s, 0.0)
    if apart_s > CLOCKS_APART_S:
        message = f"its clock and ours are {apart_s:.0f} s apart; ages are corrected by that"
        found.append(Finding(Level.WARNING, "Prometheus", access.url, message, "run NTP (chrony) on both machines"))
    return found


def _shown_who(access: Access) -> str:
    if access.bearer_token_file is not None:
        return ", takes our token"
    return ", takes our password" if access.username is not None else ""


def fix_of(failure: Failure, access: Access) -> str:
    """What to change, in one line."""
    reason, detail = failure.reason, failure.detail.lower()
    if reason in ("http 401", "http 403"):
        if access.bearer_token_file is not None:
            return f"the token in {access.bearer_token_file} is not accepted: put a valid one there"
        if access.username is not None:
            return f"user {access.username} with the password in {access.password_file} is not accepted: correct them"
        return "it asks who we are: set prometheus.bearerTokenFile or prometheus.basicAuth"
    if "certificate verify failed" in detail:
        own = f"{access.ca_file} is not its authority" if access.ca_file else "its authority is not the system's"
        return f"{own}: set prometheus.tls.caFile to the authority that signed its certificate"
    if reason == "http 404":
        return "prometheus.url must end where /api/v1 begins; Mimir and Thanos often have a prefix, e.g. /prometheus"
    if reason in ("http 301", "http 302", "http 307", "http 308"):
        return "redirects are not followed: set prometheus.url to where it leads (https instead of http?)"
    return _FIXES.get(reason, "see its own log")


_FIXES: Final[Mapping[str, str]] = {
    Fault.REFUSED: f"nothing listens there: correct prometheus.url; {_OUTSIDE}",
    Fault.UNREACHABLE: f"no way there: correct the name in prometheus.url or a NetworkPolicy; {_OUTSIDE}",
    Fault.TIME_OUT: f"it is slow, or a NetworkPolicy drops us: raise prometheus.timeout, or look at both; {_OUTSIDE}",
    Fault.NO_CREDENTIALS: "mount the file that it names, with one line of text, or the certificate in PEM",
    Fault.NO_ANSWER: "something else answers there, such as a login page: correct prometheus.url",
    Fault.NOT_TEXT: "what stands between must not compress: it was asked for identity",
    Fault.TOO_LARGE: "something else answers there: correct prometheus.url",
}
