"""KWOK is started again where its own start killed it, and only there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.realcluster import kwok, pki
from tests.realcluster.cluster import Cluster
from tests.realcluster.controlplane import Layout
from tests.realcluster.errors import StartError
from tests.realcluster.process import Process


class OneProcess:
    """A control plane of one process: a shell that ends with `last_words` at each of its first `deaths` starts."""

    def __init__(self, directory: Path, name: str, last_words: str, deaths: int) -> None:
        self._counter = directory / "starts"
        count = f"echo x >> {self._counter}; test $(wc -l < {self._counter}) -gt {deaths}"
        self._process = Process(name, ("/bin/sh", "-c", f'{count} && exec sleep 1000; echo "{last_words}"'), directory)
        (directory / "ca.crt").write_text(pki.new_authority("of a test").pem)
        layout = Layout(
            directory, "https://127.0.0.1:1", directory / "ca.crt", "", directory / "none", (self._process,)
        )
        self.cluster = Cluster(layout, {})

    @property
    def starts(self) -> int:
        return len(self._counter.read_text().splitlines())

    def bring_up(self) -> None:
        self._process.start()
        self.cluster._await_start(self._sleeps, "it to go on")

    def _sleeps(self) -> bool:
        return Path(f"/proc/{self._process.pid}/comm").read_text() == "sleep\n"


@contextmanager
def one(directory: Path, name: str, last_words: str, deaths: int) -> Iterator[OneProcess]:
    made = OneProcess(directory, name, last_words, deaths)
    try:
        yield made
    finally:
        made.cluster.stop()


def test_kwok_that_dies_of_its_race_is_started_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with one(tmp_path, "kwok", kwok.RACE, deaths=3) as made:
        made.bring_up()
        assert made.starts == 4
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        f"kwok ended with 'fatal error: concurrent map writes', a fault of its own start: started again ({n} of 3)"
        for n in (1, 2, 3)
    ]


def test_kwok_that_dies_of_it_a_fourth_time_is_reported(tmp_path: Path) -> None:
    with one(tmp_path, "kwok", kwok.RACE, deaths=1000) as made:
        with pytest.raises(StartError, match=r"kwok ended:\n(.*\n)*fatal error: concurrent map writes"):
            made.bring_up()
        assert made.starts == 4


@pytest.mark.parametrize(("name", "last_words"), [("kwok", "panic: no kubeconfig"), ("etcd", kwok.RACE)])
def test_no_other_end_of_a_process_is_forgiven(tmp_path: Path, name: str, last_words: str) -> None:
    with one(tmp_path, name, last_words, deaths=1) as made:
        with pytest.raises(StartError, match=rf"{name} ended:\n{last_words}"):
            made.bring_up()
        assert made.starts == 1
