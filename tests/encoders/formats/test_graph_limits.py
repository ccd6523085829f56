"""The builder of graphs refuses what asks for too much before anything is allocated."""

import pytest
import torch

from encoders.formats.graph import LONGEST_NAME, GraphBuilder, file_input
from encoders.limits import LimitError, Limits
from encoders.ops import Concat, Conv2d, MaxPool2d, Relu


def builder(*shape: int, **limits: int) -> GraphBuilder:
    return GraphBuilder("test", file_input("x", ["N", *shape], torch.float32), Limits(**limits))


def test_an_input_beyond_the_limit_is_refused_by_the_option_that_allows_it() -> None:
    with pytest.raises(LimitError, match="--allow input_values=12"):
        builder(3, 4, input_values=11)
    builder(3, 4, input_values=12)


def test_the_number_of_nodes_is_limited() -> None:
    graph = builder(3, nodes=2)
    value = graph.emit("b", Relu(), graph.emit("a", Relu(), graph.input))
    with pytest.raises(LimitError, match="--allow nodes=3"):
        graph.emit("c", Relu(), value)


def test_values_that_double_with_each_node_end_at_the_limit() -> None:
    graph = builder(2)
    value = graph.input
    with pytest.raises(LimitError, match=r"node 'c25' \(concat\) asks for 134,217,728 node values"):
        for i in range(60):
            value = graph.emit(f"c{i}", Concat(0), value, value)


def test_windows_and_their_padding_are_limited() -> None:
    graph = builder(1, 4, 4)
    huge = 2**40
    with pytest.raises(LimitError, match="window_cells"):
        graph.emit("p", MaxPool2d((huge, huge), (1, 1), (huge - 1,) * 4), graph.input)
    with pytest.raises(LimitError, match="padded input"):
        graph.emit("c", Conv2d(torch.ones(1, 1, 1, 1), None, (huge // 2**20,) * 2, (huge,) * 4), graph.input)
    with pytest.raises(ValueError, match="stride or dilation"):
        graph.emit("c", Conv2d(torch.ones(1, 1, 1, 1), None, (huge, huge)), graph.input)


def test_thousands_of_nodes_with_one_long_name_are_named_apart_in_little_memory() -> None:
    graph = builder(1)
    value = graph.input
    for _ in range(5_000):
        value = graph.emit("n" * 10**6, Relu(), value)
    names = [node.name for node in graph.finish(value).nodes]
    assert len(set(names)) == 5_000
    assert max(map(len, names)) < LONGEST_NAME + 10
