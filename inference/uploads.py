"""Read the images of a request into memory, never onto the disk, and decode them."""

import asyncio
import contextlib
import functools
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from fastapi import HTTPException
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from common import jpeg
from common.decoding import BMP, JPEG, PNG, BadImageError, decode
from inference.exported import Description

MEGABYTE = 2**20
MAX_BODY = 32 * MEGABYTE  # bytes of one request
MAX_ALL_BODIES = 256 * MEGABYTE  # bytes of all requests under way
MAX_FILES = 100  # in one request
MAX_PIXELS = 2**25  # of one image: 8K video has as many; less than `load` takes, to save memory
MAX_ALL_PIXELS = 2**27  # of all images of one request
MAX_SCANS = 100  # of a JPEG image: each passes over all its pixels; encoders write about ten
# Smaller files are decoded sooner than handed to another thread; but all wait for it meanwhile.
SMALL_BYTES, SMALL_PIXELS = 4096, 2**14
AT_ONCE_SECONDS = 0.005  # for the small files of one request
TURN_SECONDS = 0.02  # of the other thread for one request, before the next has its turn
FIELD = "files"
BODY = "body"  # the name of an image that comes without one

# It warns of forms that cannot be read; the client is told, and whoever started the server not.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


class Upload(NamedTuple):
    """A file of a request: its name as the client gave it, and its bytes."""

    name: str
    data: bytes


class FormParser(MultiPartParser):
    """Starlette's parser of forms, kept from the disk and from codecs that the client names.

    By itself it writes what is above a megabyte to the disk, and reads names by the `charset` of
    the request, which may be any codec of Python's. RFC 7578 knows no such parameter: names are
    UTF-8. Those that are not are read as Latin-1.
    """

    spool_max_size = MAX_BODY + 1
    _charset = property(lambda self: "utf-8", lambda self, value: None)


class Uploads:
    """Takes the images out of requests, within the limits.

    Parameters
    ----------
    description : Description
        The model's, which says what size and colours the images get.
    """

    def __init__(self, description: Description) -> None:
        self.description = description
        self.bytes_under_way = 0
        # One by one: each may take a hundred times the memory of its file.
        self.decoder = ThreadPoolExecutor(1, thread_name_prefix="decoder")

    async def read(self, request: Request) -> tuple[list[str], np.ndarray]:
        """Return the names and the pixels of a request's images.

        Returns
        -------
        (list of str, ndarray of uint8)
            N names; shape (N, image_size, image_size, 1 or 3).

        Raises
        ------
        HTTPException
            4xx: the request is above a limit, no form, has no file, or one that is no image.
        """
        received = 0

        async def limited() -> AsyncGenerator[bytes, None]:
            nonlocal received
            async for chunk in request.stream():
                received += len(chunk)
                self.bytes_under_way += len(chunk)
                if received > MAX_BODY:
                    raise HTTPException(413, TOO_MANY_BYTES)
                if self.bytes_under_way > MAX_ALL_BODIES:
                    raise HTTPException(429, BUSY, {"Retry-After": "1"})
                yield chunk

        try:
            if int(request.headers.get("content-length", 0)) > MAX_BODY:
                raise HTTPException(413, TOO_MANY_BYTES)
            if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
                files = await files_of_form(request, limited())
            else:
                files = [Upload(BODY, b"".join([chunk async for chunk in limited()]))]
            images = await self.decoded(files)
        finally:
            self.bytes_under_way -= received
        return [file.name for file in files], np.stack(images)

    async def decoded(self, files: list[Upload]) -> list[np.ndarray]:
        """Return the pixels of files, decoded where that does not keep other requests waiting."""
        images = self.decode_some(itertools.takewhile(is_small, files), AT_ONCE_SECONDS)
        if len(images) < len(files):
            in_thread = functools.partial(asyncio.get_running_loop().run_in_executor, self.decoder)
            await in_thread(check, files)
            while len(images) < len(files):
                rest = files[len(images) :]
                images += await in_thread(self.decode_some, rest, TURN_SECONDS)
        return images

    def decode_some(self, files: Iterable[Upload], seconds: float) -> list[np.ndarray]:
        """Return the pixels of the first files, as many as are decoded in a time."""
        end = time.monotonic() + seconds
        images = []
        for file in files:
            images.append(self.decode(file))
            if time.monotonic() > end:
                break
        return images

    def decode(self, file: Upload) -> np.ndarray:
        """Return the pixels of a file, decoded as `load` decodes the images of the training."""
        try:
            return decode(file.data, self.description.image_size, self.description.color_mode)[0]
        except BadImageError as error:
            raise HTTPException(422, f"{file.name}: {error}") from None


TOO_MANY_BYTES = f"the request has more than {MAX_BODY // MEGABYTE} MB; send fewer or smaller files"
BUSY = "too many requests are under way; try again in a second"


async def files_of_form(request: Request, body: AsyncGenerator[bytes, None]) -> list[Upload]:
    """Return the files of a form's field.

    Raises
    ------
    HTTPException
        4xx: it is no form, or not one with such a field, or has too many.
    """
    parser = FormParser(request.headers, body, max_files=MAX_FILES, max_fields=MAX_FILES)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if parser._current_files > MAX_FILES:
            message = f"the request has more than {MAX_FILES} files; send several requests"
            raise HTTPException(413, message) from None
        raise HTTPException(400, f"the form cannot be read: {error.message}") from None
    values = form.getlist(FIELD)
    files = [
        Upload(value.filename or BODY, value.file.read())
        for value in values
        if isinstance(value, UploadFile)
    ]
    if not files or len(files) < len(values):
        raise HTTPException(400, f"the form needs its images as files in the field {FIELD!r}")
    return files


def is_small(file: Upload) -> bool:
    """Tell whether a file is decoded in next to no time."""
    return len(file.data) <= SMALL_BYTES and 0 < pixels_of(file.data) <= SMALL_PIXELS


def check(files: list[Upload]) -> None:
    """Refuse files that would take too much memory or time to decode.

    Raises
    ------
    HTTPException
        413: one of them, or all together, have too many pixels, or one has too many scans.
    """
    all_pixels = 0
    for file in files:
        pixels = pixels_of(file.data)
        if pixels > MAX_PIXELS:
            message = f"{file.name}: more than {MAX_PIXELS // 10**6} million pixels"
            raise HTTPException(413, message)
        if file.data.startswith(JPEG) and has_many_scans(file.data):
            raise HTTPException(413, f"{file.name}: a JPEG image of more than {MAX_SCANS} scans")
        all_pixels += pixels
    if all_pixels > MAX_ALL_PIXELS:
        message = f"the images have more than {MAX_ALL_PIXELS // 10**6} million pixels together"
        raise HTTPException(413, f"{message}; send several requests")


def has_many_scans(data: bytes) -> bool:
    """Tell whether a JPEG image has more than `MAX_SCANS` scans."""
    if data.count(SCAN_MARK) <= MAX_SCANS:
        return False
    # Some of these bytes may lie in other segments, or in a video that follows the image.
    return sum(marker == jpeg.SCAN for marker, _, _ in jpeg.segments(data)) > MAX_SCANS


SCAN_MARK = jpeg.SCAN.to_bytes(2, "big")


def pixels_of(data: bytes) -> int:
    """Return how many pixels an image file says that it has; 0 where `decode` will refuse it."""
    if data.startswith(PNG) and data[12:16] == b"IHDR":
        return int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big")
    if data.startswith(BMP):
        if data[14:18] == b"\x0c\x00\x00\x00":  # the header of OS/2
            return int.from_bytes(data[18:20], "little") * int.from_bytes(data[20:22], "little")
        height = int.from_bytes(data[22:26], "little", signed=True)  # negative: from the top
        return int.from_bytes(data[18:22], "little") * abs(height)
    if data.startswith(JPEG):
        with contextlib.suppress(BadImageError):  # `decode` will raise it too
            (_, _, height, width, _), _ = jpeg.header_of(data)
            return height * width
    return 0
