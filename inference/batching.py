"""Answer the requests that come together with one call of the model."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from inference.exported import ExportedModel

MAX_BATCH = 256  # images in one call; a request that exceeds it by itself is a call of its own


class Batcher:
    """A queue before a model: while the model answers some images, others gather for its next call.

    Parameters
    ----------
    model : ExportedModel
        The model that is asked, by one thread, so that the event loop goes on meanwhile.
    """

    def __init__(self, model: ExportedModel) -> None:
        self.model = model
        self.waiting: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = []
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.task: asyncio.Task[None] | None = None

    async def probabilities_of(self, images: np.ndarray) -> np.ndarray:
        """Return what `ExportedModel.probabilities_of` returns, once the model has answered."""
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((images, future))
        if self.task is None:
            self.task = asyncio.create_task(self.answer_all())
        return await future

    async def answer_all(self) -> None:
        """Call the model until nothing waits."""
        loop = asyncio.get_running_loop()
        while requests := self.take():
            images = np.concatenate([images for images, _ in requests])
            try:
                answers = await loop.run_in_executor(
                    self.thread, self.model.probabilities_of, images
                )
            except Exception as error:  # whatever it is, those who wait must be told
                for _, future in requests:
                    if not future.done():
                        future.set_exception(error)
                continue
            start = 0
            for its_images, future in requests:
                end = start + len(its_images)
                if not future.done():  # its client may have gone away
                    future.set_result(answers[start:end])
                start = end
        self.task = None

    def take(self) -> list[tuple[np.ndarray, asyncio.Future[np.ndarray]]]:
        """Take as many requests as one call may have; at least one, where one waits."""
        count = images = 0
        for its_images, _ in self.waiting:
            images += len(its_images)
            if count and images > MAX_BATCH:
                break
            count += 1
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken
