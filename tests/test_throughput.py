"""Whether data keep up with training, said the right way round."""

import numpy as np
import pytest

from minifcn import cli, data, models
from minifcn.training import throughput


@pytest.mark.parametrize(("loading", "training"), [(0.3, 0.2), (0.1, 0.2)])
def test_both_rates_are_measured_in_samples_a_second(loading, training, monkeypatch):
    now = 0.0

    def takes(seconds, result=None):
        """A function that takes so long, by a clock on which nothing else takes any time."""

        def work(*given):
            nonlocal now
            now += seconds
            return result

        return work

    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now)
    monkeypatch.setattr(throughput.loop, "update", takes(training))
    stream = type("Stream", (), {"__next__": takes(loading, (np.zeros((2, 3, 8, 8)), np.zeros((2, 8, 8))))})()
    found = throughput.measure(models.fcn("32s", "mini", 2, "same", width=1), stream)
    assert found == pytest.approx((2 / loading, 2 / training))


def test_explain_says_which_of_the_two_waits(tmp_path, capsys, monkeypatch):
    data.write_toyvoc(tmp_path / "toy", train=3, val=1, size=40)
    command = ["explain", "mini", "--variant", "32s", "--size", "32", "--data", str(tmp_path / "toy")]
    for rates, ending in (((9.0, 2.0), "the data keep up"), ((2.0, 9.0), "the data are the bottleneck; ")):
        monkeypatch.setattr(
            throughput, "measure", lambda model, stream, rates=rates: next(stream) and throughput.Throughput(*rates)
        )
        assert cli.main(command) == 0
        last = capsys.readouterr().out.splitlines()[-1]
        assert last.startswith(str(tmp_path / "toy"))
        assert f"{rates[0]} samples a second are read and cropped; the network trains on {rates[1]}: {ending}" in last


@pytest.mark.parametrize("wrong", [["vgg16", "--data", "nowhere"], ["mini", "--variant", "8s", "--data", "nowhere"]])
def test_explain_with_data_that_do_not_fit_is_told_in_a_line(wrong, capsys):
    assert cli.main(["explain", *wrong]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
