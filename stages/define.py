"""Stage 2, `define`: parameters to an architecture.

Reads   params.yaml, data/prepared/classes.json
Writes  models/architecture.json: the network, untrained, as Keras describes it
        metrics/define.json: number of parameters, multiply-adds for one image
"""

import json
import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from common import layers
from common.backend import keras
from common.console import run
from common.outputs import replacing, write_json
from common.params import CHANNELS, ColorMode, ImageSize, StageParams, read_params
from common.splits import read_classes

ARCHITECTURE = Path("models/architecture.json")
METRICS = Path("metrics/define.json")

POOL = 2

Width = Annotated[int, Field(ge=1, le=4096)]
Block = Annotated[list[Width], Field(min_length=1, max_length=10)]


class DefineParams(StageParams):
    """What `define` reads of params.yaml."""

    color_mode: ColorMode
    image_size: ImageSize
    conv_filters: list[Width | Block] = Field(
        max_length=10,
        description="a list of at most 10 whole numbers from 1 to 4096, or lists of them",
    )
    kernel_size: int = Field(ge=1, le=15, description="a whole number of pixels from 1 to 15")
    padding: Literal["valid", "same"] = Field(description="valid or same")
    head: Literal["flatten", "average"] = Field(description="flatten or average")
    dense_units: list[Width] = Field(
        max_length=10, description="a list of at most 10 whole numbers from 1 to 4096"
    )
    dropout: float = Field(ge=0, lt=1, description="a number from 0 to below 1")
    batch_norm: bool = Field(description="true or false")
    precision: Literal["float32", "mixed_bfloat16"] = Field(description="float32 or mixed_bfloat16")

    @model_validator(mode="after")
    def _image_outlasts_convolutions(self) -> "DefineParams":
        size = self.image_size
        lost = self.kernel_size - 1 if self.padding == "valid" else 0
        for index, block in enumerate(blocks(self.conv_filters), start=1):
            size = (size - len(block) * lost) // POOL
            if size < 1:
                raise ValueError(
                    f"conv_filters is {self.conv_filters!r}; its item {index}, with kernel_size "
                    f"{self.kernel_size} and pooling, leaves nothing of an image of image_size "
                    f"{self.image_size}; it must be a list of at most {index - 1}, or of "
                    "shorter lists"
                )
        return self


def blocks(conv_filters: list[Width | Block]) -> list[Block]:
    """Return the filters of each convolution, in a list for each pooling that follows them."""
    return [[block] if isinstance(block, int) else block for block in conv_filters]


def build_network(params: DefineParams, classes: int) -> keras.Sequential:
    """Return the untrained network.

    Convolution, activation, pooling for each of `conv_filters`, or several convolutions before
    a pooling where it holds a list; then `head`; a dense layer for each of `dense_units`; softmax
    over the classes.

    Parameters
    ----------
    params : DefineParams
        With ``padding: same`` a convolution keeps the size of its image, which is filled up
        with zeros around. With ``batch_norm``, batch normalisation [1]_ stands before the
        activation of each convolution, after its pooling. With ``head: flatten`` the dense
        layers see each pixel of what the convolutions leave; with ``average`` they see only the
        mean of each filter over all pixels [2]_, so that large images need no dense layer of
        millions of weights. With ``dropout``, that share [3]_ of the input of each dense layer
        is dropped in training. With ``mixed_bfloat16``, layers compute in 16 bits and keep their
        weights in 32 [4]_.
    classes : int
        Number of classes.

    Returns
    -------
    keras.Sequential
        float32 (N, image_size, image_size, channels) in [0, 1] to float32 (N, classes), rows
        of which sum to 1.

    References
    ----------
    .. [1] S. Ioffe and C. Szegedy, "Batch normalization: accelerating deep network training
       by reducing internal covariate shift", ICML 2015.
    .. [2] M. Lin, Q. Chen and S. Yan, "Network in network", ICLR 2014.
    .. [3] N. Srivastava et al., "Dropout: a simple way to prevent neural networks from
       overfitting", JMLR 15, 2014.
    .. [4] https://keras.io/api/mixed_precision/
    """
    dtype = params.precision
    image_shape = (params.image_size, params.image_size, CHANNELS[params.color_mode])
    network = [keras.Input(image_shape, name="image")]
    conv_number = 0
    for pool_number, block in enumerate(blocks(params.conv_filters), start=1):
        for position, filters in enumerate(block, start=1):
            conv_number += 1
            network.append(
                layers.Conv2D(
                    filters,
                    params.kernel_size,
                    padding=params.padding,
                    activation=None if params.batch_norm else "relu",
                    use_bias=not params.batch_norm,
                    dtype=dtype,
                    name=f"conv_{conv_number}",
                )
            )
            if position == len(block):
                network.append(layers.MaxPooling2D(POOL, dtype=dtype, name=f"pool_{pool_number}"))
            if params.batch_norm:  # after pooling: there it has a quarter of the work
                network.append(
                    layers.BatchNormalization(dtype=dtype, name=f"batch_norm_{conv_number}")
                )
                network.append(layers.Activation("relu", dtype=dtype, name=f"relu_{conv_number}"))
    if params.head == "flatten":
        network.append(layers.Flatten(dtype=dtype, name="flatten"))
    else:
        network.append(layers.GlobalAveragePooling2D(dtype=dtype, name="average"))
    dense_widths = [*params.dense_units, classes]
    for dense_number, units in enumerate(dense_widths, start=1):
        if params.dropout:
            network.append(
                layers.Dropout(params.dropout, dtype=dtype, name=f"dropout_{dense_number}")
            )
        if dense_number < len(dense_widths):
            network.append(
                layers.Dense(units, activation="relu", dtype=dtype, name=f"dense_{dense_number}")
            )
    network.append(
        layers.Dense(classes, activation="softmax", dtype="float32", name="probabilities")
    )
    return keras.Sequential(network, name="mnist_cnn")


def multiply_adds(model: keras.Sequential) -> int:
    """Count the multiply-adds of the convolutions and dense layers for one image."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            total += math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:3])
        elif isinstance(layer, layers.Dense):
            total += math.prod(layer.kernel.shape)
    return total


def main() -> None:
    """Run the stage."""
    params = read_params(DefineParams)
    model = build_network(params, len(read_classes()))
    model.summary(line_length=80)
    counts = {"parameters": model.count_params(), "multiply_adds": multiply_adds(model)}
    with replacing(ARCHITECTURE) as architecture, replacing(METRICS) as metrics:
        architecture.write_text(json.dumps(json.loads(model.to_json()), indent=2) + "\n")
        write_json(metrics, counts)


if __name__ == "__main__":
    run("define", main)
