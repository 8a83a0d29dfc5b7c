"""int8 as torchao has it: weights of linear layers, a scale for each row, loaded by transformers through config.json.

What is written is what `Int8WeightOnlyConfig` of torchao 0.18 saves (torchao/prototype/safetensors, and
torchao/quantization/quantize_/workflows/int8/int8_tensor.py): `x.weight` becomes `x._weight_qdata`, `x._weight_scale`
and `x._weight_zero_point`, and the file's metadata say what each tensor is.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from deadweight.models.safetensors import Tensor

VERSIONS: Final = ("0.18",)
"""The versions of torchao that read this, as it is known here."""
MODEL_TYPES: Final = frozenset(
    (
        "bert",
        "camembert",
        "distilbert",
        "electra",
        "mpnet",
        "roberta",
        "xlm-roberta",
        "llama",
        "mistral",
        "qwen2",
        "qwen3",
    )
)
"""Models (model_type of config.json) in whose layers each matrix is the weight of a linear layer."""
_LAYER: Final = re.compile(r"(?:^|\.)layers?\.\d+\..+\.weight\Z")
_MOST: Final = 1 << 16  # columns: a row is worked on whole


def is_linear(tensor: Tensor) -> bool:
    """Whether a tensor of such a model is a linear layer's weight, as far as its name and shape tell."""
    return len(tensor.shape) == 2 and tensor.shape[1] <= _MOST and _LAYER.search(tensor.name) is not None


def described(tensor: Tensor, *, int8: bool) -> str:
    """What a file's metadata say of a tensor."""
    if not int8:
        return json.dumps({"_type": "Tensor"})
    data = {
        "act_quant_kwargs": None,
        "reduce_range": False,
        "block_size": [1, tensor.shape[1]],
        "dtype": {"_type": "torch.dtype", "_data": "float32"},
    }
    return json.dumps({"_type": "Int8Tensor", "_data": data, "_tensor_data_names": ["zero_point", "qdata", "scale"]})


QUANTIZATION: Final[dict[str, Any]] = {
    "include_input_output_embeddings": False,
    "modules_to_not_convert": None,
    "quant_method": "torchao",
    "quant_type": {
        "default": {
            "_type": "Int8WeightOnlyConfig",
            "_version": 2,
            "_data": {
                "group_size": None,
                "granularity": {"_type": "PerRow", "_version": 1, "_data": {"dim": -1}},
                "set_inductor_config": True,
            },
        }
    },
    "untie_embedding_weights": False,
}
"""What config.json says of it, as `quantization_config`."""
