"""Every problem of a file says what to do about it, whatever the format."""

import onnx
import pytest
import torch
from torch import nn

from encoders.formats.errors import LISTED_PROBLEMS, Problem, UnsupportedNodesError
from encoders.formats.onnx_reader import convert
from encoders.formats.remedies import REMEDIES, remedy
from encoders.formats.torch_export import from_module
from tests.networks.onnx_models import model

make = onnx.helper.make_node

OF_OTHER_DOMAINS = {
    "Attention", "CategoryMapper", "DictVectorizer", "MultiHeadAttention", "OneHotEncoder", "SVMClassifier",
    "SVMRegressor", "Tokenizer", "TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor",
}  # fmt: skip


def test_remedies_are_for_operators_that_exist() -> None:
    for name in REMEDIES:
        assert not name[0].isupper() or name in OF_OTHER_DOMAINS or onnx.defs.has(name, ""), name


@pytest.mark.parametrize(
    ("operator", "words"),
    [
        ("LSTM", "unrolled"),
        ("aten.lstm.input", "unrolled"),
        ("NonMaxSuppression", "post-processing"),
        ("QLinearConv", "float32"),
        ("aten.native_batch_norm.default", "outside of the model"),
        ("aten.batch_norm.default", "eval()"),
        ("NeverHeardOf", "outside of the model"),
    ],
)
def test_the_remedy_of_an_operator(operator: str, words: str) -> None:
    assert words in remedy(operator)
    assert words in Problem("n", operator, "why").remedy


def test_all_problems_of_an_onnx_graph_are_there_though_the_message_is_short() -> None:
    count = LISTED_PROBLEMS + 7
    nodes = [make("LRN", ["x" if i == 0 else f"v{i - 1}"], [f"v{i}"], name=f"n{i}", size=3) for i in range(count)]
    nodes.append(make("Relu", [f"v{count - 1}"], ["y"]))
    with pytest.raises(UnsupportedNodesError) as caught:
        convert(model(nodes, ["N", 3, 4, 4]), "file.onnx")
    problems = caught.value.problems
    assert [problem.node for problem in problems] == [f"n{i}" for i in range(count)]
    assert {problem.operator for problem in problems} == {"LRN"}
    assert "and 7 more" in str(caught.value)


class Ranked(nn.Module):
    """Two calls that are not supported."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cumprod(self.norm(x), dim=1)


def test_all_problems_of_a_torch_program_are_there() -> None:
    with pytest.raises(UnsupportedNodesError) as caught:
        from_module(Ranked(), (3,))
    problems = {problem.operator: problem.remedy for problem in caught.value.problems}
    assert "stored statistics" in problems["aten.group_norm.default"]
    assert "outside of the model" in problems["aten.cumprod.default"]
