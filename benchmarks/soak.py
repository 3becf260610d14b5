"""Does the daemon stay as it is? Hours of accelerated load on a real control plane behind the fault proxy.

    python benchmarks/soak.py --minutes 120 --workloads 30 --out soak.jsonl
    python benchmarks/soak.py --report soak.jsonl

Short windows and delays let a day of scaling pass in minutes: every workload follows a noisy wave between idle and four
times its target, goes to zero and is woken; workloads come, are edited and go, under a new name each time, so that what
is kept of a deleted one shows; pods die, the configuration changes, and every few minutes something fails for some
seconds. Every 10 s one line says what the process takes. The end (also SIGTERM) prints medians, slopes and a verdict.

It runs a copy of the source tree, taken at its start. The pods are KWOK's, and one socket of this process answers for
all of them with pages as large as vLLM's. It decides nothing about what a good count is, only that bounds hold.

soak_pages: the load. soak_troubles: the faults. soak_run: who does what, and what must hold. soak_process: what the
daemon says and takes. soak_report: what came of it. soak_source: the copy that runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
from pathlib import Path

from benchmarks.soak_pages import PodPages
from benchmarks.soak_report import report
from benchmarks.soak_run import Soak
from benchmarks.soak_source import copy_the_source, source
from tests.realcluster import sandbox, session
from tests.realcluster.faultproxy import FaultProxy
from tests.realcluster.modelserver_watch import ApiAccess


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--workloads", type=int, default=30)
    parser.add_argument("--trouble-every", type=float, default=150, metavar="SECONDS", help="on average")
    parser.add_argument("--commit", help="what to run; the working tree otherwise")
    parser.add_argument("--out", type=Path, help="where the lines go; required, but for --report")
    parser.add_argument("--report", type=Path, help="print what a saved file says")
    options = parser.parse_args()
    if options.report:
        raise SystemExit(0 if report(options.report) else 1)
    if options.out is None:  # as `make bench` calls it
        print("# takes hours: start it with --minutes and --out")
        return
    out = options.out.resolve()
    if sandbox.inside():
        raise SystemExit(soak(options, out))
    run_dir = Path(tempfile.mkdtemp(prefix="tidegate-soak-"))
    tree = run_dir / "tree"
    copy_the_source(tree, options.commit)
    asked = [
        f"--{name}={getattr(options, name.replace('-', '_'))}" for name in ("minutes", "workloads", "trouble-every")
    ]
    here = [sys.executable, str(tree / "benchmarks" / "soak.py"), *asked, f"--out={out}"]
    command = sandbox.command_to_enter(run_dir, here)
    out.write_text(json.dumps({"kind": "start", **source(options.commit)}) + "\n")
    os.chdir(tree)
    os.execve(command[0], command, {**os.environ, "PYTHONPATH": str(tree)})


def soak(options: argparse.Namespace, out: Path) -> int:
    """Inside the private namespace, from the copy."""
    stop: list[int] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stop.append(number))
    os.nice(5)
    os.environ["GOGC"] = "300"  # the control plane collects less often: this is about the daemon's memory, not its
    try:
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(out.open("a"))
            cluster = stack.enter_context(session.fresh_cluster())
            cluster.add_gpu_node("extra", gpus=256)
            namespace = cluster.create_namespace("soak")
            proxy = stack.enter_context(FaultProxy(cluster.url, cluster.ca_path))
            access = ApiAccess(cluster.url, cluster.admin_token, str(cluster.ca_path), namespace)
            pages = stack.enter_context(PodPages(access))
            work = Soak(cluster, namespace, proxy, pages, file, options.workloads)
            work.start_daemon(cluster.directory / "daemon", options.minutes * 60)
            work.run(options.minutes, options.trouble_every, lambda: bool(stop))
    finally:
        good = report(out)
    return 0 if good else 1


if __name__ == "__main__":
    main()
