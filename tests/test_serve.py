"""The server: a real one, asked over HTTP; its limits, and that nothing brings it down."""

import asyncio
import base64
import http.client
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement
from PIL import Image

from common.console import InputError
from common.decoding import decode
from inference.batching import Batcher
from inference.connections import MAX_HEADERS
from inference.exported import ExportedModel
from inference.serve import listening
from inference.uploads import MAX_BODY, MAX_FILES, pixels_of
from tests import digit_model
from tests.helpers import ADMITTED, ENVIRONMENT, GREY, ROOT, encoded
from tests.serving import BOUNDARY, Server, answer_of, form_of, serving

FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
DIGIT = encoded(GREY, "JPEG")
H2C = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"}
# Few bytes of many pixels, and of many scans, the last of which is there 200 times.
VAST = encoded(Image.new("1", (5700, 5700)))
SCANS = encoded(Image.new("L", (256, 256)), "JPEG", progressive=True)
SCANS = SCANS[:-2] + SCANS[SCANS.rindex(b"\xff\xda") : -2] * 199 + SCANS[-2:]
PHOTO = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), "u1")))
SLOW_AND_SMALL = """
from inference import api, connections, serve
connections.RECEIVE_SECONDS, connections.ANSWER_SECONDS = 2.0, 2.0
connections.MAX_CONNECTIONS, api.MAX_REQUESTS = 8, 3
serve.run("serve", serve.main)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with an exported model."""
    folder = tmp_path_factory.mktemp("served")
    digit_model.write_digit_model(folder / "models/model.onnx")
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> ExportedModel:
    """Open the model in this process."""
    return ExportedModel(folder / "models/model.onnx")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """Serve the model."""
    with serving(folder) as server:
        yield server
        assert server.ask("GET", "/health").body == {"status": "ok"}


def expected(model: ExportedModel, name: str, data: bytes) -> dict:
    """Return the prediction that the model makes of a file in this process."""
    pixels = decode(data, 28, "grayscale").pixels
    probabilities = model.probabilities_of(pixels[None])[0]
    label = int(probabilities.argmax())
    return {
        "file": name,
        "class": str(label),
        "confidence": pytest.approx(float(probabilities[label]), abs=1e-5),
        "probabilities": pytest.approx(
            {str(index): float(value) for index, value in enumerate(probabilities)}, abs=1e-5
        ),
    }


def test_it_says_what_the_model_says(server: Server, model: ExportedModel) -> None:
    for name, data in ADMITTED.items():
        answer = server.ask("POST", "/predict", data)
        assert answer.body == {"predictions": [expected(model, "body", data)]}, name
        assert answer.status == 200
    files = [(f"{name}.img", data) for name, data in ADMITTED.items()]
    answer = server.predict(*files)
    assert answer.body == {"predictions": [expected(model, name, data) for name, data in files]}
    description = server.ask("GET", "/model").body
    assert description == model.description.model_dump()


def test_it_shows_what_the_network_saw(server: Server) -> None:
    answer = server.ask("POST", "/predict?seen=true", encoded(GREY))
    kind, _, content = answer.body["predictions"][0]["seen"].partition(",")
    assert kind == "data:image/png;base64"
    seen = decode(base64.b64decode(content), 28, "grayscale").pixels
    assert (seen[:, :, 0] == np.asarray(GREY)).all()


def test_many_at_once_get_each_their_own_answer(server: Server, model: ExportedModel) -> None:
    """Among them bad ones, whose neighbours must not suffer."""
    generator = np.random.default_rng(1)
    images = [
        encoded(Image.fromarray(generator.integers(0, 256, (28, 28), np.uint8))) for _ in range(200)
    ]
    bodies = [b"no image" if index % 10 == 3 else image for index, image in enumerate(images)]
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda body: server.ask("POST", "/predict", body), bodies))
    for body, answer in zip(bodies, answers, strict=True):
        if body == b"no image":
            assert (answer.status, answer.body["detail"]) == (
                422,
                "body: not a JPEG, PNG or BMP image",
            )
        else:
            assert answer.body == {"predictions": [expected(model, "body", body)]}


def test_what_comes_together_is_answered_by_one_call() -> None:
    calls = []

    class Model:
        def probabilities_of(self, images: np.ndarray) -> np.ndarray:
            calls.append(len(images))
            if images.max() == 99:
                raise RuntimeError("a defect")
            time.sleep(0.05)
            return images[:, :1]

    async def ask_all() -> list:
        batcher = Batcher(Model())
        first = asyncio.create_task(batcher.probabilities_of(np.full((1, 2), 7)))
        await asyncio.sleep(0.01)  # the model is busy now
        others = [batcher.probabilities_of(np.full((n, 2), n)) for n in (1, 2, 3, 300, 4)]
        answers = await asyncio.gather(first, *others)
        bad = await asyncio.gather(
            batcher.probabilities_of(np.full((1, 2), 99)), return_exceptions=True
        )
        return [*answers, *bad, await batcher.probabilities_of(np.full((1, 2), 5))]

    *answers, bad, after = asyncio.run(ask_all())
    assert [answer.ravel().tolist() for answer in answers] == [
        [7], [1], [2] * 2, [3] * 3, [300] * 300, [4] * 4,
    ]  # fmt: skip
    assert calls == [1, 6, 300, 4, 1, 1]
    assert isinstance(bad, RuntimeError)
    assert after == [[5]]


@pytest.mark.parametrize(
    ("body", "headers", "status", "detail"),
    [
        (b"", {}, 422, "body: the file is empty"),
        (b"not an image", {}, 422, "body: not a JPEG, PNG or BMP image"),
        (DIGIT[:-40], {}, 422, "body: the image is cut off"),
        (form_of((("1.jpg", DIGIT), ("2.jpg", b"x"))), FORM, 422, "2.jpg: not a JPEG, "),
        (form_of((("1.jpg", DIGIT),), "images"), FORM, 400, "the form needs its images as files"),
        (form_of(()), FORM, 400, "the form needs its images as files in the field 'files'"),
        (b"nonsense", FORM, 400, "the form cannot be read: "),
        (b"x", {"Content-Type": "multipart/form-data"}, 400, "the form cannot be read: "),
        (form_of((("a", DIGIT),) * (MAX_FILES + 1)), FORM, 413, "the request has more than 100 f"),
        (b"", {"Content-Length": str(MAX_BODY + 1)}, 413, "the request has more than 32 MB; "),
        (iter([bytes(2**20)] * 33), {}, 413, "the request has more than 32 MB; "),  # chunked
        (encoded(Image.new("1", (6000, 6000))), {}, 413, "body: more than 33 million pixels"),
        (form_of((("a", VAST),) * 5), FORM, 413, "the images have more than 134 million pixels "),
        (SCANS, {}, 413, "body: a JPEG image of more than 100 scans"),
        (DIGIT, {"Origin": "https://example.com"}, 403, "pages of other sites may not ask"),
        (DIGIT, {"Origin": "null"}, 403, "pages of other sites may not ask"),
        (DIGIT, {"Host": "example.com"}, 403, "the server is not asked under its own name"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_a_sentence(
    server: Server, body: object, headers: dict[str, str], status: int, detail: str
) -> None:
    answer = server.ask("POST", "/predict", body, headers)
    assert answer.status == status
    assert answer.body.keys() == {"detail"}
    assert answer.body["detail"].startswith(detail)
    assert "\n" not in answer.body["detail"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/../serve.py", 404),
        ("GET", "/%00", 404),
        ("GET", "/predict", 405),
        ("DELETE", "/model", 405),
        ("OPTIONS", "/predict", 405),
        ("POST", "/predict?seen=perhaps", 400),
    ],
)
def test_other_addresses_and_methods_are_refused(
    server: Server, method: str, path: str, status: int
) -> None:
    answer = server.ask(method, path, DIGIT if method == "POST" else None)
    assert (answer.status, answer.body.keys()) == (status, {"detail"})


def test_what_is_no_http_is_refused(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n" + BEYOND)
        assert connection.recv(1000).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_endless_headers_are_refused(server: Server) -> None:
    start = b"GET / HTTP/1.1\r\nX: "
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(start + b"x" * (MAX_HEADERS + 1 - len(start)))
        said = b"".join(iter(lambda: connection.recv(1000), b""))
    assert said.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert said.endswith(b'{"detail": "the headers have more than 32768 bytes"}')


def test_others_are_answered_while_images_are_decoded(server: Server) -> None:
    """Of few bytes, which must not make them count as small."""
    with ThreadPoolExecutor(1) as pool:
        start = time.monotonic()
        decoded = pool.submit(server.predict, *[("vast.png", VAST)] * 4)
        waits = [start]
        while not decoded.done():
            assert server.ask("GET", "/health").status == 200
            waits.append(time.monotonic())
    assert decoded.result().status == 200
    longest = np.diff(waits).max()
    assert longest < max(0.2, (waits[-1] - start) / 3)  # the second where the machine is busy


def test_what_follows_a_jpeg_image_is_not_among_its_scans(
    server: Server, model: ExportedModel
) -> None:
    photo = encoded(Image.new("L", (256, 256)), "JPEG")
    answer = server.ask("POST", "/predict", photo + b"\xff\xda" * 200)
    assert answer.body == {"predictions": [expected(model, "body", photo)]}


@pytest.mark.parametrize(
    "charset", ["undefined", "punycode", "utf-7", "unicode_escape", "latin-1", "no such charset"]
)
def test_names_are_utf_8_whatever_charset_is_given(server: Server, charset: str) -> None:
    """RFC 7578, section 5.1.2, has no such parameter; other bytes are read as Latin-1."""
    names = ["ä+2AA-\\ud800七.png", "\udcff\udced\udca0\udc80.png"]
    body = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
        f"Content-Type: image/jpeg; charset={charset}\r\n\r\n".encode("utf-8", "surrogateescape")
        + DIGIT
        + b"\r\n"
        for name in names
    )
    field = f'--b\r\nContent-Disposition: form-data; name="_charset_"\r\n\r\n{charset}\r\n'.encode()
    kind = f'multipart/form-data; boundary=b; charset="{charset}"'
    answer = server.ask("POST", "/predict", field + body + b"--b--\r\n", {"Content-Type": kind})
    assert answer.status == 200
    files = [prediction["file"] for prediction in answer.body["predictions"]]
    assert files == [names[0], "\xff\xed\xa0\x80.png"]


@pytest.mark.parametrize("headers", [H2C, {"Connection": "upgrade", "Upgrade": "websocket"}])
def test_an_offer_of_another_protocol_is_ignored(
    server: Server, model: ExportedModel, headers: dict[str, str]
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for body in (DIGIT, iter([DIGIT[:9], DIGIT[9:]]), DIGIT):  # whole, then in chunks
        connection.request("POST", "/predict", body, headers)
        answer = answer_of(connection)
        assert answer.body == {"predictions": [expected(model, "body", DIGIT)]}
    connection.close()


@pytest.mark.parametrize("offer", [{}, H2C])
def test_requests_may_be_sent_ahead(server: Server, offer: dict[str, str]) -> None:
    """More than headers may be long, all together; each gets its answer."""
    lines = [f"{name}: {value}\r\n" for name, value in offer.items()]
    request = f"GET /health HTTP/1.1\r\nHost: localhost\r\nX: {'x' * 99}\r\n{''.join(lines)}\r\n"
    end = "GET /model HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall((request * 1500 + end).encode())
        said = b"".join(iter(lambda: connection.recv(2**16), b""))
    assert said.count(b'{"status":"ok"}') == 1500
    assert b'"classes"' in said


BEYOND = bytes(60 * 10**6)


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/predict", BEYOND, {}, 413),
        ("/predict", BEYOND, {"Connection": "close"}, 413),
        ("/predict", iter([BEYOND] * 3), {"Connection": "close"}, 413),  # chunked
        ("/predict", BEYOND, {"Connection": "close", "Origin": "https://example.com"}, 403),
        ("/predict?seen=perhaps", BEYOND, {"Connection": "close"}, 400),
        ("/nowhere", BEYOND, {"Connection": "close"}, 404),
        ("/health", BEYOND, {"Connection": "close"}, 405),
    ],
)
def test_who_sends_all_before_reading_hears_why_it_is_refused(
    server: Server, path: str, body: object, headers: dict[str, str], status: int
) -> None:
    answer = server.ask("POST", path, body, headers)
    assert (answer.status, answer.body.keys()) == (status, {"detail"})


def test_large_uploads_stay_in_memory(server: Server) -> None:
    """The server's process may not write a byte into any file: see `tests.serving`."""
    assert len(PHOTO) > 6 * 2**20
    answer = server.predict(*[(f"{index}.png", PHOTO) for index in range(4)])
    assert answer.status == 200
    assert len(answer.body["predictions"]) == 4


@pytest.mark.parametrize(
    "image",
    [
        encoded(Image.new("RGB", (300, 200)), kind, **options)
        for kind, options in (("PNG", {}), ("BMP", {}), ("JPEG", {}), ("JPEG", {"subsampling": 2}))
    ],
)
def test_the_size_is_read_before_decoding(image: bytes) -> None:
    assert pixels_of(image) == 60_000


def test_the_size_is_that_of_the_decoder() -> None:
    """Where they differed, an image might pass that takes any memory."""
    photo = encoded(Image.new("RGB", (300, 200)), "JPEG")
    stray = photo[:20] + b"\xff\x01 stray" + photo[20:]  # a mark that other readers refuse
    assert decode(stray, 28).pixels.shape == (28, 28, 1)
    assert pixels_of(stray) == 60_000


@pytest.mark.slow
def test_who_is_slow_or_one_too_many_is_refused(folder: Path) -> None:
    with serving(folder, program=("-c", SLOW_AND_SMALL)) as server:

        def begun(text: bytes) -> socket.socket:
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            connection.sendall(text)
            return connection

        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
        body = head + b"Content-Length: 1000\r\n\r\nxx"
        waiting = [begun(b""), begun(head), begun(body), begun(body), begun(body)]
        time.sleep(0.3)
        busy = server.ask("POST", "/predict", DIGIT)  # three requests are under way
        assert (busy.status, busy.headers["Retry-After"]) == (429, "1")
        waiting += [begun(b"") for _ in range(2)]
        early = begun(head + b"Origin: null\r\nContent-Length: 1000\r\n\r\nxx")
        with begun(body + bytes(10**7)) as one_too_many:
            said = one_too_many.recv(1000)
        assert said.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert said.endswith(b'{"detail": "too many connections are open; try again in a second"}')
        for connection in waiting:
            said = b"".join(iter(lambda c=connection: c.recv(1000), b""))
            assert said.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            assert said.endswith(b'{"detail": "the request did not come within 2 seconds"}')
            connection.close()
        early.settimeout(10)
        said = b"".join(iter(lambda: early.recv(1000), b""))  # whose rest was waited for as long
        assert said.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        early.close()
        assert server.ask("POST", "/predict", DIGIT).status == 200
        form = form_of((("1.jpg", DIGIT),) * MAX_FILES)
        head = (
            f"POST /predict?seen=1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(form)}\r\n"
        )
        request = f"{head}Content-Type: {FORM['Content-Type']}\r\n\r\n".encode() + form
        with begun(request) as never_reads, pytest.raises((ConnectionError, TimeoutError)) as error:
            never_reads.settimeout(30)
            while True:
                never_reads.sendall(request)
        assert error.type is not TimeoutError
        assert server.ask("POST", "/predict", DIGIT).status == 200


def test_who_goes_away_early_harms_nobody(server: Server) -> None:
    request = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\nx"
    for length in (5, 30, len(request)):
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
            connection.sendall(request[:length])
    assert server.ask("POST", "/predict", DIGIT).status == 200


def test_one_connection_serves_many_requests(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for body, status in ((DIGIT, 200), (b"x", 422), (DIGIT, 200), (bytes(2**20), 422)) * 3:
        connection.request("POST", "/predict", body)
        assert answer_of(connection).status == status
    connection.close()


def test_pages_and_answers_carry_their_protection(server: Server) -> None:
    for path in ("/", "/docs", "/page.js", "/page.css", "/icon.svg", "/model", "/nowhere"):
        headers = server.ask("GET", path).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"


# What a client might send: forms with damaged parts, any bytes, images with bytes changed.
CHANGED_IMAGES = st.builds(
    lambda data, position, byte: (
        data[: position % len(data)] + bytes([byte]) + data[position % len(data) + 1 :]
    ),
    st.sampled_from([*ADMITTED.values()]),
    st.integers(0, 10**6),
    st.integers(0, 255),
)
PARTS = st.builds(
    lambda header, data: b"--a-boundary\r\n" + header + b"\r\n\r\n" + data + b"\r\n",
    st.one_of(
        st.binary(max_size=60),
        st.text(max_size=20).map(
            lambda name: f'Content-Disposition: form-data; name="files"; filename="{name}"'.encode()
        ),
        st.sampled_from([b'Content-Disposition: form-data; name="files"', b"X: y"]),
    ),
    st.one_of(st.binary(max_size=60), CHANGED_IMAGES),
)
FORMS = st.builds(
    lambda parts, end: b"".join(parts) + end,
    st.lists(PARTS, max_size=4),
    st.sampled_from([b"--a-boundary--\r\n", b"--a-boundary--", b"", b"\r\n--"]),
)
TYPES = st.sampled_from(
    [
        FORM["Content-Type"],
        FORM["Content-Type"] + "; charset=undefined",
        "multipart/form-data; boundary=",
        "image/png",
        "text/html; charset=ä",
    ]
)


@settings(max_examples=150)
@given(st.one_of(FORMS, CHANGED_IMAGES, st.binary(max_size=200)), TYPES)
def test_no_upload_is_an_error_of_the_server(server: Server, body: bytes, kind: str) -> None:
    headers = {"Content-Type": kind.encode("latin-1").decode("latin-1")}
    answer = server.ask("POST", "/predict?seen=true", body, headers)
    assert answer.status in (200, 400, 413, 422)
    assert (answer.status == 200) == ("predictions" in answer.body)
    if answer.status != 200:
        assert isinstance(answer.body["detail"], str)


@settings(max_examples=50)
@given(st.binary(max_size=100))
def test_no_bytes_are_an_error_of_the_server(server: Server, request_bytes: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(b"POST " + request_bytes + b" HTTP/1.1\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert not re.match(rb"HTTP/1.1 5", connection.recv(1000))


def test_the_description_is_of_what_there_is(server: Server) -> None:
    description = server.ask("GET", "/openapi.json").body
    assert set(description["paths"]) == {"/predict", "/health", "/model"}
    predict = description["paths"]["/predict"]["post"]
    assert {"multipart/form-data", "image/png"} < set(predict["requestBody"]["content"])
    for operation in (each for path in description["paths"].values() for each in path.values()):
        for status, response in operation["responses"].items():
            reference = response["content"]["application/json"]["schema"]["$ref"]
            assert status == "200" or reference == "#/components/schemas/Problem"
    fields = description["components"]["schemas"]["Prediction"]["properties"].keys()
    answer = server.ask("POST", "/predict?seen=true", DIGIT).body["predictions"][0]
    assert fields == answer.keys()


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("127.0.0.1", "taken", "PORT is 'taken'; it must be a whole number, 0 to 65535"),
        ("127.0.0.1", "65536", "PORT is '65536'; it must be a whole number, 0 to 65535"),
        ("no.such.host.invalid", "8000", "cannot listen on 'no.such.host.invalid', port 8000: "),
        ("a" * 64, "8000", f"cannot listen on '{'a' * 64}', port 8000: that is no name of a mach"),
        ("a..b", "8000", "cannot listen on 'a..b', port 8000: that is no name of a machine"),
        ("\udc80", "8000", r"cannot listen on '\udc80', port 8000: that is no name of a machine"),
        ("", "8000", "cannot listen on '', port 8000: "),
        ("192.0.2.1", "8000", "cannot listen on '192.0.2.1', port 8000: "),  # nobody's
    ],
)
def test_a_wrong_address_is_refused(host: str, port: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        listening(host, port)


def test_a_taken_port_is_one_line(server: Server, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "inference.serve", f"--port={server.port}"],
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    said = f"serve: error: cannot listen on '127.0.0.1', port {server.port}: "
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_it_warns_where_others_reach_it(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "inference.serve", "--port=0", "--host=0.0.0.0"],
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    lines = [process.stdout.readline() for _ in range(2)]
    port = int(lines[1].split()[1].rpartition(":")[2])
    answer = Server(process, port).ask("GET", "/health", headers={"Host": "any.example"})
    process.terminate()
    process.communicate()
    assert lines[0].startswith("serve: warning: whoever reaches this machine at 0.0.0.0 may use")
    assert answer.status == 200


def locked(name: str) -> dict[str, Requirement]:
    """Return the packages of a lock by their names."""
    lines = re.findall(r"^([\w-]+==.+?) \\$", (ROOT / name).read_text(), re.MULTILINE)
    requirements = map(Requirement, lines)
    return {requirement.name: requirement for requirement in requirements}


def test_the_lock_of_the_container_is_of_the_same_versions() -> None:
    own, all_of_them = locked("inference/requirements.txt"), locked("requirements.txt")
    assert not {"tensorflow", "keras", "dvc", "pandas"} & own.keys()
    assert {name: str(line.specifier) for name, line in own.items()} == {
        name: str(all_of_them[name].specifier) for name in own
    }


@pytest.mark.slow
def test_what_the_container_holds_is_enough(
    folder: Path, model: ExportedModel, tmp_path: Path
) -> None:
    """Run what the Containerfile copies, with the packages of its lock and no others."""
    application, packages = tmp_path / "app", tmp_path / "packages"
    packages.mkdir()
    for name in re.findall(
        r"^COPY (\w+) \w+$", (ROOT / "inference/Containerfile").read_text(), re.M
    ):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, application / name, ignore=ignored)
    shutil.copytree(folder / "models", application / "models")
    for name, requirement in locked("inference/requirements.txt").items():
        if requirement.marker is None or requirement.marker.evaluate():
            distribution = metadata.distribution(name)
            for top in {file.parts[0] for file in distribution.files} - {".."}:
                if not (packages / top).exists():
                    (packages / top).symlink_to(distribution.locate_file(top))
    start = f"import sys; sys.path[:0] = [{str(application)!r}, {str(packages)!r}];"
    start += "from common.console import run; from inference import serve; run('serve', serve.main)"
    with serving(application, program=("-I", "-S", "-c", start)) as server:
        answer = server.predict(("1.jpg", DIGIT))
        assert answer.body == {"predictions": [expected(model, "1.jpg", DIGIT)]}


def test_without_a_builder_the_container_is_one_line(folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "inference.container"],
        cwd=folder,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT), "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (
        1,
        "container: error: none of podman, docker, buildah is on this machine; "
        "install one of them\n",
    )
