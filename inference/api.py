"""What the server answers: its addresses, their description, and the limits of all of them."""

import asyncio
import base64
import functools
import json
import re
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inference.batching import Batcher
from inference.exported import Description, ExportedModel
from inference.uploads import BUSY, FIELD, Uploads

MAX_REQUESTS = 128  # under way
ANSWER_SECONDS = 60.0
WRITTEN_AT_ONCE = 2**14  # numbers of an answer: more would keep other requests waiting

PAGE = Path(__file__).parent / "page"
PAGES = {"/": "index.html", "/docs": "docs.html"}  # other files by their own names
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class Prediction(BaseModel):
    """What the model says of one image."""

    file: str = Field(description="its name as it was sent, or body")
    class_: str = Field(alias="class", description="the most probable class")
    confidence: float = Field(description="the probability of that class")
    probabilities: dict[str, float] = Field(description="of every class, rounded to 6 digits")
    seen: str | None = Field(
        None, description="with seen=true: what the network saw, a PNG image as a data URL"
    )


class Predictions(BaseModel):
    """What the model says of the images of a request, in their order."""

    predictions: list[Prediction]


class Health(BaseModel):
    """The server is there and has its model."""

    status: str


class Problem(BaseModel):
    """Why a request was not answered."""

    detail: str = Field(description="one sentence")


REASONS = {
    400: "The request or its form cannot be read, or has no file",
    403: "A page of another site sent it, or it names another host",
    408: "It took the client too long to send it",
    413: "Too many bytes, files, pixels or scans",
    422: "A file is no image that can be read; the sentence names it",
    429: "Too many requests are under way; Retry-After says when to try again",
    431: "The headers are too long",
}
PROBLEMS = {status: {"model": Problem, "description": reason} for status, reason in REASONS.items()}

IMAGE = {"schema": {"type": "string", "format": "binary"}}
FORM = {
    "schema": {
        "type": "object",
        "required": [FIELD],
        "properties": {FIELD: {"type": "array", "minItems": 1, "items": IMAGE["schema"]}},
    }
}
REQUEST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": FORM,
        "image/jpeg": IMAGE,
        "image/png": IMAGE,
        "image/bmp": IMAGE,
    },
}


def application(model: ExportedModel, hosts: frozenset[str] | None = None) -> ASGIApp:
    """Return the application that answers with a model.

    Parameters
    ----------
    model : ExportedModel
        The model.
    hosts : frozenset of str or None
        The names under which the server may be asked; None for any.
    """
    app = FastAPI(
        title="Image classification",
        summary="What a trained model says of images.",
        version=model.description.model_md5[:8],
        docs_url=None,  # FastAPI's pages are loaded from another site; page/docs.html is not
        redoc_url=None,
        responses={status: PROBLEMS[status] for status in (400, 403, 408, 429, 431)},
    )
    uploads, batcher = Uploads(model.description), Batcher(model)
    classes = model.description.classes

    @app.post(
        "/predict",
        response_model=Predictions,
        responses={status: PROBLEMS[status] for status in (413, 422)},
        openapi_extra={"requestBody": REQUEST_BODY},
    )
    async def predict(
        request: Request,
        seen: Annotated[bool, Query(description="send the image that the network saw")] = False,
    ) -> Response:
        """Classify images: one or several files of a form, or one image as the body."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                names, images = await uploads.read(request)
                rows = await batcher.probabilities_of(images)
        except TimeoutError:
            raise HTTPException(429, BUSY, {"Retry-After": "1"}) from None
        write = functools.partial(json_of, names, classes, rows, images if seen else None)
        is_short = rows.size + seen * images.size <= WRITTEN_AT_ONCE
        return Response(
            write() if is_short else await asyncio.to_thread(write), media_type="application/json"
        )

    @app.get("/health")
    async def health() -> Health:
        """Tell that the server is there."""
        return Health(status="ok")

    @app.get("/model")
    async def describe() -> Description:
        """Describe the model: its classes, the images it takes, and where it comes from."""
        return model.description

    names = PAGES | {f"/{path.name}": path.name for path in PAGE.iterdir() if path.is_file()}
    for address, name in names.items():
        content = (PAGE / name).read_bytes()
        response = Response(content, media_type=TYPES[Path(name).suffix])
        app.add_api_route(
            address, constant(response), methods=["GET", "HEAD"], include_in_schema=False
        )

    @app.exception_handler(RequestValidationError)
    async def explain(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"detail": f"{first['loc'][-1]}: {first['msg']}"}, 400)

    @app.exception_handler(ClientDisconnect)
    async def nobody_waits(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=408)

    return Gate(app, hosts)


def constant(response: Response):
    """Return a route that always answers the same."""

    async def answer() -> Response:
        return response

    return answer


def json_of(
    names: list[str], classes: list[str], rows: np.ndarray, images: np.ndarray | None
) -> str:
    """Return the answer to a request.

    Parameters
    ----------
    names : list of str
        Of the files.
    classes : list of str
        Names of the classes, by label.
    rows : ndarray of float32, shape (files, classes)
        What the model said.
    images : ndarray of uint8, shape (files, H, W, 1 or 3), or None
        What the network saw, where that is asked for.
    """
    predictions = [prediction_of(name, classes, row) for name, row in zip(names, rows, strict=True)]
    if images is not None:
        for prediction, image in zip(predictions, images, strict=True):
            prediction["seen"] = data_url_of(image)
    return json.dumps({"predictions": predictions})


def prediction_of(name: str, classes: list[str], probabilities: np.ndarray) -> dict:
    """Return a prediction as it is sent.

    Parameters
    ----------
    name : str
        The file's.
    classes : list of str
        Names of the classes, by label.
    probabilities : ndarray of float32, shape (classes,)
        What the model said.
    """
    # float32 has 7 digits, of which the last depends on what else was in the batch.
    rounded = [round(value, 6) for value in probabilities.tolist()]
    label = int(probabilities.argmax())
    return {
        "file": name,
        "class": classes[label],
        "confidence": rounded[label],
        "probabilities": dict(zip(classes, rounded, strict=True)),
    }


def data_url_of(image: np.ndarray) -> str:
    """Return an image as a PNG file in a data URL.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W, 1 or 3)
        Grey levels, or red, green and blue.
    """
    _, png = cv2.imencode(".png", image[:, :, ::-1])  # OpenCV has blue first
    return "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()


class Gate:
    """Stands before an application: who may ask, how many at once, and the headers of all answers.

    Parameters
    ----------
    app : ASGI application
        What answers those who may.
    hosts : frozenset of str or None
        The names under which the server may be asked. A page of another site that has its name
        point to this machine ("DNS rebinding") asks under its own. None for any.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None) -> None:
        self.app = app
        self.hosts = hosts
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer: ASGIApp = self.app
        problem = self.problem_of(Headers(scope=scope))
        if problem is not None:
            answer = problem
        self.under_way += 1
        try:
            await answer(scope, receive, send_with_headers)
        finally:
            self.under_way -= 1

    def problem_of(self, headers: Headers) -> JSONResponse | None:
        """Return why a request is not let through; None if it is."""
        host = headers.get("host", "")
        if self.hosts is not None and not {host, re.sub(":[0-9]+$", "", host)} & self.hosts:
            return JSONResponse({"detail": "the server is not asked under its own name"}, 403)
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return JSONResponse({"detail": "pages of other sites may not ask this server"}, 403)
        if self.under_way >= MAX_REQUESTS:
            return JSONResponse({"detail": BUSY}, 429, {"Retry-After": "1"})
        return None
