"""Use a trained model: one image, and a folder of images, in this project and in plain Keras.

    python -m bench.inference one MODEL IMAGES
    python -m bench.inference keras_one MODEL IMAGES
    python -m bench.inference keras_folder MODEL FOLDER
    python -m bench.inference keras_serve PORT

The last line that the first three print holds the figures, as JSON.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.named import print_figures

ASKED = 200  # images, one at a time
WARM_UP = 20


def median_of_each(ask: Callable[[np.ndarray], object], images: np.ndarray) -> dict[str, float]:
    """Return the median time in which one image is answered, in milliseconds."""
    seconds = []
    for index in range(WARM_UP + ASKED):
        start = time.perf_counter()
        ask(images[index : index + 1])
        seconds.append(time.perf_counter() - start)
    return {"milliseconds": 1000 * statistics.median(seconds[WARM_UP:])}


def one(model: str, images: str) -> dict[str, float]:
    """Ask the exported model, one image at a time."""
    from inference.exported import ExportedModel

    return median_of_each(ExportedModel(Path(model)).probabilities_of, np.load(images))


def keras_one(model: str, images: str) -> dict[str, float]:
    """Ask `keras.Model.predict`, one image at a time."""
    import keras

    trained = keras.models.load_model(model, compile=False)
    scaled = np.load(images)[: WARM_UP + ASKED].astype(np.float32) / 255
    return median_of_each(lambda image: trained.predict(image, verbose=0), scaled)


def keras_folder(model: str, folder: str) -> dict[str, float]:
    """Predict all images of a folder, as Keras's documentation does, and keep a table."""
    import keras

    trained = keras.models.load_model(model, compile=False)
    dataset = keras.utils.image_dataset_from_directory(
        folder, labels=None, color_mode="grayscale", image_size=(28, 28), shuffle=False
    )
    probabilities = trained.predict(dataset.map(lambda images: images / 255))
    with Path(folder, "../keras.csv").open("w") as table:
        for file, row in zip(dataset.file_paths, probabilities, strict=True):
            table.write(f"{file},{row.argmax()},{row.max()}\n")
    return {"images": len(probabilities)}


def keras_serve(port: str) -> dict[str, float]:
    """Serve `keras.Model.predict` with FastAPI, as its documentation shows."""
    import io

    import fastapi
    import keras
    import uvicorn
    from PIL import Image

    trained = keras.models.load_model("models/mnist_cnn_model.h5", compile=False)
    app = fastapi.FastAPI()

    @app.post("/predict")
    async def predict(request: fastapi.Request) -> dict[str, list]:
        image = Image.open(io.BytesIO(await request.body())).convert("L").resize((28, 28))
        probabilities = trained.predict(np.asarray(image)[None, :, :, None] / 255, verbose=0)[0]
        return {"predictions": [{"probabilities": dict(enumerate(probabilities.tolist()))}]}

    uvicorn.run(app, port=int(port), log_level="error")
    return {}


NAMES: dict[str, Callable[..., dict[str, float]]] = {
    "one": one,
    "keras_one": keras_one,
    "keras_folder": keras_folder,
    "keras_serve": keras_serve,
}

if __name__ == "__main__":
    print_figures(NAMES)
