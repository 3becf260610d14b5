"""What a real Prometheus makes of our questions: the expressions, the escapes, and how it asks who we are."""

from __future__ import annotations

import json
import re
import urllib.request
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlencode

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoscaler.signals.aggregates import Labels, by_quantity, expression
from autoscaler.signals.engines import ENGINES, Quantity, own_metric
from autoscaler.signals.faults import Fault
from autoscaler.signals.prometheus import Access, Answer, Failure, PrometheusClient
from autoscaler.signals.promql import quoted, read_query
from tests.realcluster import pki
from tests.realcluster.cluster import Cluster
from tests.realcluster.prometheus import Prometheus

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.text("\"'\\`{}()|.*$^\n#=~", max_size=12)
ASKED_WITH_ONE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


async def ask(access: Access, promql: str) -> Answer | Failure:
    client = PrometheusClient(access)
    try:
        return await client.query(promql)
    finally:
        await client.close()


def parsed(prometheus: Prometheus, promql: str) -> list[dict[str, str]]:
    """The matchers of its one selector, as Prometheus itself reads them."""
    with urllib.request.urlopen(
        f"{prometheus.url}/api/v1/parse_query?{urlencode({'query': promql})}", timeout=5
    ) as got:
        matchers: list[dict[str, str]] = json.load(got)["data"]["matchers"]
    return [each for each in matchers if each["name"] != "__name__"]


@ASKED_WITH_ONE
@given(NAMES)
def test_a_name_reaches_prometheus_as_it_is_and_alone(prometheus: Prometheus, name: str) -> None:
    assert parsed(prometheus, f"foo{{a={quoted(name)}}}") == [{"name": "a", "type": "=", "value": name}]
    query = read_query("foo{a='{namespace}', b=~\"{workload}\"}")
    filled = query.filled({"namespace": name, "workload": name, "revision": ""}, ())
    plain, regex = parsed(prometheus, filled)
    assert plain == {"name": "a", "type": "=", "value": name}
    assert (regex["name"], regex["type"]) == ("b", "=~")
    assert re.fullmatch(regex["value"], name, re.DOTALL)


async def test_our_questions_are_promql(prometheus: Prometheus) -> None:
    labels = Labels("exported_namespace", "pod", (("cluster", 'a"b\\'), ("job", "vllm")))
    own = tuple(map(own_metric, ("queue:depth", "jobs_total", "gpu-utilization", "gpu-memory")))
    groups = by_quantity([source for words in ENGINES.values() for source in words.sources.values()] + [*own])
    assert len(groups) == len(Quantity) + len(own)
    for sources in groups:
        answer = await ask(Access(prometheus.url), expression(sources, labels))
        assert answer == Answer(None, ()), sources[0].key


async def test_it_answers_and_says_what_it_refuses(prometheus: Prometheus) -> None:
    one = await ask(Access(prometheus.url), "vector(1)")
    assert isinstance(one, Answer)
    assert [series.value for series in one.series] == [1.0]
    refused = await ask(Access(prometheus.url), "sum(")
    assert isinstance(refused, Failure)
    assert refused.reason == Fault.QUERY_REFUSED
    assert "parse error" in refused.detail


async def test_a_guarded_prometheus_is_asked_with_certificate_and_password(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    authority = pki.new_authority("prometheus-ca")
    authority.write(tmp_path, "ca")
    pki.issue(authority, "prometheus", hosts=("127.0.0.1",)).write(tmp_path, "server")
    pki.issue(authority, "tidegate").write(tmp_path, "client")
    (tmp_path / "password").write_text("test\n")
    (tmp_path / "wrong").write_text("other\n")
    web = {
        "tls_server_config": {
            "cert_file": str(tmp_path / "server.crt"),
            "key_file": str(tmp_path / "server.key"),
            "client_auth_type": "RequireAndVerifyClientCert",
            "client_ca_file": str(tmp_path / "ca.crt"),
        },
        # bcrypt of "test", the example of Prometheus's own guide
        "basic_auth_users": {"tidegate": "$2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay"},
    }
    with Prometheus(cluster, namespace, tmp_path / "guarded", web=web) as guarded:
        known = Access(
            guarded.url,
            timeout_s=10.0,
            username="tidegate",
            password_file=tmp_path / "password",
            ca_file=tmp_path / "ca.crt",
            cert_file=tmp_path / "client.crt",
            key_file=tmp_path / "client.key",
        )
        assert isinstance(await ask(known, "vector(1)"), Answer)
        wrong = replace(known, password_file=tmp_path / "wrong")
        assert await ask(wrong, "vector(1)") == Failure("http 401")
        for lacking in (replace(known, ca_file=None), replace(known, cert_file=None)):
            assert isinstance(await ask(lacking, "vector(1)"), Failure)
