"""The notebook that this project grew from, as one script: the other side of comparisons.

    python bench/notebook.py FOLDER [SEED]

FOLDER holds mnist-jpg/train and mnist-jpg/test. The two figures and the model are written into
the working directory. It is run as a script, by its path, as a user would run it.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import tensorflow as tf
from sklearn.metrics import confusion_matrix
from tensorflow.keras import layers, models
from tensorflow.keras.preprocessing.image import ImageDataGenerator

folder = Path(sys.argv[1], "mnist-jpg")
if len(sys.argv) > 2:
    tf.keras.utils.set_random_seed(int(sys.argv[2]))


def images(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `count` images of a split at random, as the notebook does."""
    return next(
        ImageDataGenerator(rescale=1.0 / 255).flow_from_directory(
            folder / split,
            target_size=(28, 28),
            batch_size=count,
            class_mode="categorical",
            color_mode="grayscale",
            shuffle=True,
            classes=[str(digit) for digit in range(10)],
        )
    )


x_train, y_train = images("train", 10000)
x_test, y_test = images("test", 2000)

model = models.Sequential(
    [
        layers.Conv2D(32, (3, 3), activation="relu", input_shape=(28, 28, 1)),
        layers.MaxPooling2D((2, 2)),
        layers.Conv2D(64, (3, 3), activation="relu"),
        layers.MaxPooling2D((2, 2)),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ]
)
model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
history = model.fit(x_train, y_train, epochs=5, validation_data=(x_test, y_test))
test_loss, test_accuracy = model.evaluate(x_test, y_test)
print("Test Accuracy", test_accuracy)

plt.plot(history.history["loss"], label="Train Loss")
plt.plot(history.history["val_loss"], label="Validation loss")
plt.title("Model Loss")
plt.xlabel("Epochs")
plt.ylabel("Loss")
plt.legend()
plt.savefig("loss.png")

predicted = np.argmax(model.predict(x_test), axis=1)
matrix = confusion_matrix(np.argmax(y_test, axis=1), predicted)
plt.figure(figsize=(8, 6))
sns.heatmap(matrix, annot=True, fmt="d", cmap="Blues")
plt.title("Confusion Matrix")
plt.xlabel("Predicted")
plt.ylabel("Actual")
plt.savefig("confusion_matrix.png")

model.save("mnist_cnn_model.h5")
