"""What to do about an operator that cannot be read: one table, by its name in ONNX and in torch.

Sentences say what a user can change in the model or in its export; they promise nothing about the rest of the model.
"""

_EVALUATION = "export the model in evaluation mode: model.eval() before the export"
_FLOAT = "export the model in float32 as it was before quantisation; integers are not computed with"
_POST_PROCESSING = "end the export in front of the post-processing: return the scores of the network itself"
_RECURRENT = "export the network unrolled over a fixed number of steps, written as matrix products and activations"
_ATTENTION = "export attention as matrix products and a softmax (in torch: the math backend of sdpa)"
_CONTROL = "export it for one fixed shape, so that loops and branches are unrolled or chosen by the exporter"
_RANDOM = f"{_EVALUATION}; a network that draws at random has no fixed outputs to prove anything about"
_SHAPES = "fix every axis but the batch in the export, so that shapes are constants"
_NORMALISE = "use a normalisation with stored statistics (batch normalisation in evaluation mode), or train without it"
_MEAN = "replace it by an average or a maximum over the window"
_ORDER = "leave the choice to who reads the scores: end the export in front of it"
_PREPARE = "encode text and categories outside of the model, and export what takes numbers"

# By operator, without namespace and overload; those of torch in lower case.
REMEDIES: dict[str, str] = {
    **dict.fromkeys(("BatchNormalization", "Dropout", "batch_norm", "dropout", "feature_dropout"), _EVALUATION),
    **dict.fromkeys(
        (
            "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
            "QuantizeLinear", "dequantize_per_tensor", "dequantize_per_channel", "quantize_per_tensor",
            "quantize_per_channel",
        ),
        _FLOAT,
    ),
    **dict.fromkeys(
        ("NonMaxSuppression", "RoiAlign", "MaxRoiPool", "NonZero", "nms", "roi_align", "nonzero"), _POST_PROCESSING
    ),
    **dict.fromkeys(("ArgMax", "ArgMin", "TopK", "argmax", "argmin", "topk", "sort", "argsort"), _ORDER),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "Scan", "lstm", "gru", "rnn_tanh", "rnn_relu"), _RECURRENT),
    **dict.fromkeys(
        ("Attention", "MultiHeadAttention", "scaled_dot_product_attention", "_native_multi_head_attention"), _ATTENTION
    ),
    **dict.fromkeys(("If", "Loop", "cond", "while_loop"), _CONTROL),
    **dict.fromkeys(
        (
            "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
            "bernoulli", "multinomial", "normal", "rand", "rand_like", "randn", "randn_like",
        ),
        _RANDOM,
    ),
    **dict.fromkeys(("Shape", "Size", "ConstantOfShape", "Range", "sym_size"), _SHAPES),
    **dict.fromkeys(
        ("InstanceNormalization", "GroupNormalization", "LRN", "LpNormalization", "group_norm", "instance_norm"),
        _NORMALISE,
    ),
    **dict.fromkeys(("LpPool", "GlobalLpPool", "MaxUnpool", "lp_pool2d", "max_unpool2d"), _MEAN),
    **dict.fromkeys(
        (
            "CategoryMapper", "DictVectorizer", "OneHotEncoder", "StringNormalizer", "TfIdfVectorizer",
            "RegexFullMatch", "StringConcat", "StringSplit", "Tokenizer",
        ),
        _PREPARE,
    ),
    **dict.fromkeys(
        ("TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble", "SVMClassifier", "SVMRegressor"),
        "trees and kernel machines are not networks of layers: there is no way to read them here",
    ),
}  # fmt: skip

_OTHERWISE = "change what the reason names, or leave this part out of the export and compute it outside of the model"


def remedy(operator: str) -> str:
    """Return what to do about a node of an operator (`LSTM`, `aten.lstm.input`) that cannot be read."""
    name = operator.removeprefix("aten.").split(".")[0] if "." in operator else operator
    return REMEDIES.get(name, _OTHERWISE)
