import dataclasses

import pytest

from encoders.limits import LimitError, Limits, read_limits


def test_a_limit_names_the_option_that_allows_more():
    with pytest.raises(LimitError, match=r"w\.onnx asks for 300,001 nodes, .* --allow nodes=300001") as caught:
        Limits().check("nodes", 300_001, "w.onnx")
    assert "Limits(nodes=300001)" in str(caught.value)
    read_limits(["nodes=300001"]).check("nodes", 300_001, "w.onnx")


def test_exactly_the_limit_is_allowed():
    Limits(nodes=3).check("nodes", 3, "a graph")


def test_every_limit_can_be_read_alone():
    for field in dataclasses.fields(Limits):
        assert getattr(read_limits([f"{field.name}=7"]), field.name) == 7


@pytest.mark.parametrize("setting", ["nodes", "nodes=", "nodes=-1", "nodes=1e5", "nodes=٣", "knots=3", "nodes=0", "=3"])
def test_a_setting_that_is_no_limit_is_refused(setting):
    with pytest.raises(ValueError, match="limit"):
        read_limits([setting])
