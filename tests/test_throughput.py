"""Whether data keep up with training is told the right way round."""

import time

import numpy as np
import pytest

from minifcn import cli, data, models
from minifcn.training import throughput


class Stream:
    """The same batch again and again, each after a pause; counts what was asked for."""

    def __init__(self, pause):
        self.pause, self.made = pause, 0

    def __next__(self):
        time.sleep(self.pause)
        self.made += 1
        return np.zeros((2, 3, 32, 32), np.float32), np.zeros((2, 32, 32), np.uint8)


def small():
    return models.fcn("32s", "mini", 2, "same", width=1)


def test_a_reader_that_sleeps_is_the_bottleneck():
    stream = Stream(pause=0.3)
    found = throughput.measure(small(), stream, rounds=1)
    assert stream.made == 5
    assert found.loader < 2 / 0.3
    assert not found.data_keep_up


def test_training_that_sleeps_is_what_waits(monkeypatch):
    update = throughput.loop.update
    monkeypatch.setattr(throughput.loop, "update", lambda *given: time.sleep(0.3) or update(*given))
    found = throughput.measure(small(), Stream(pause=0.0), rounds=1)
    assert found.training < 2 / 0.3
    assert found.data_keep_up


def test_explain_says_which_of_the_two_waits(tmp_path, capsys, monkeypatch):
    data.write_toyvoc(tmp_path / "toy", train=3, val=1, size=40)
    command = ["explain", "mini", "--variant", "32s", "--size", "32", "--data", str(tmp_path / "toy")]
    for rates, ending in (((9.0, 2.0), "the data keep up"), ((2.0, 9.0), "the data are the bottleneck; ")):
        monkeypatch.setattr(
            pace, "measure", lambda model, stream, rates=rates: next(stream) and throughput.Throughput(*rates)
        )
        assert cli.main(command) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith(str(tmp_path / "toy"))
        assert f"{rates[0]} samples a second are read and cut; the network trains on {rates[1]}: {ending}" in last


@pytest.mark.parametrize("wrong", [["vgg16", "--data", "nowhere"], ["mini", "--variant", "8s", "--data", "nowhere"]])
def test_explain_with_data_that_do_not_fit_is_told_in_a_line(wrong, capsys):
    assert cli.main(["explain", *wrong]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
