"""A model that reads digits, made in a second: for tests of what uses an exported model.

Ridge regression with a Gaussian kernel, on scikit-learn's digits fitted and centred.
"""

from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

from inference.exported import INPUT, OUTPUT, Description

SIZE, FIT = 28, 20  # pixels
WIDTH = 0.03  # of the kernel: exp(-WIDTH * squared distance of two images from 0 to 1)
RIDGE = 0.01
SHARPNESS = 12.0  # of the softmax
DESCRIPTION = Description(
    classes=[str(digit) for digit in range(10)],
    image_size=SIZE,
    color_mode="grayscale",
    model_md5="0" * 32,
    commit=None,
    metrics={"test_accuracy": 0.97},
)


def fitted_and_centred(digit: np.ndarray) -> np.ndarray:
    """Return a digit of 8x8 pixels fitted into 20x20 and centred by its mass in 28x28."""
    grey = (digit * 15.9).astype(np.uint8)
    rows, columns = np.nonzero(grey > 30)
    grey = grey[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = FIT / max(grey.shape)
    grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    moments = cv2.moments(grey)
    shift = [(SIZE - 1) / 2 - moments[name] / moments["m00"] for name in ("m10", "m01")]
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
    return cv2.warpAffine(grey, matrix, (SIZE, SIZE))


def write_digit_model(path: Path) -> None:
    """Train the model and write it as `make export` would."""
    digits = load_digits()
    images = np.stack([fitted_and_centred(digit) for digit in digits.images])
    known = images.reshape(len(images), -1) / 255
    norms = (known**2).sum(axis=1)
    kernel = np.exp(-WIDTH * (norms[:, None] + norms - 2 * known @ known.T))
    weights = np.linalg.solve(kernel + RIDGE * np.eye(len(known)), np.eye(10)[digits.target])
    constants = {
        "scale": np.array(1 / 255),
        "shape": np.array([-1, SIZE * SIZE]),
        "axis": np.array([1]),
        "known": 2 * WIDTH * known.T,
        "norms": WIDTH * norms,
        "width": np.array(WIDTH),
        "weights": SHARPNESS * weights,
    }
    nodes = [
        ("Cast", [INPUT], "levels", {"to": TensorProto.FLOAT}),
        ("Mul", ["levels", "scale"], "unit", {}),
        ("Reshape", ["unit", "shape"], "flat", {}),
        ("MatMul", ["flat", "known"], "products", {}),
        ("ReduceSumSquare", ["flat", "axis"], "squares", {}),
        ("Mul", ["squares", "width"], "square", {}),
        ("Sub", ["products", "square"], "partly", {}),
        ("Sub", ["partly", "norms"], "distances", {}),
        ("Exp", ["distances"], "likeness", {}),
        ("MatMul", ["likeness", "weights"], "scores", {}),
        ("Softmax", ["scores"], OUTPUT, {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, names, [name], **extra) for kind, names, name, extra in nodes],
        "digits",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [None, SIZE, SIZE, 1])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, 10])],
        [
            numpy_helper.from_array(
                value if value.dtype == np.int64 else value.astype(np.float32), name
            )
            for name, value in constants.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, DESCRIPTION.to_metadata())
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
