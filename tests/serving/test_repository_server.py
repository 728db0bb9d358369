"""The repository in a real Triton: PyTriton's wheel has one, with the Python backend and ensembles, without TensorRT's.

So the network's own configuration is read and judged by Triton, which then misses the backend; with a Python model in
place of the plan, the rest of it answers pictures.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("pytriton", reason="PyTriton is in the serving environment: make test-serving")

import numpy as np
import tritonclient.grpc as triton
from PIL import Image
from pytriton.utils.distribution import get_libs_path, get_root_module_path, get_stub_path

from runtime.images import Limits, read_image
from serving.model_configs import Tuning
from serving.repository import write_repository
from serving.settings import Settings, libpython_folder
from tests.serving.plans import write_plan

# In place of a plan: the pixels turned round, and an account of the batches.
STAND_IN = """\
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            pixels = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
            assert pixels.dtype == np.uint8 and pixels.shape[1:] == (16, 16, 3), pixels.shape
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("dog", 255 - pixels)]))
        return responses
"""


@pytest.fixture(scope="module")
def triton_home(tmp_path_factory):
    """The server of the wheel, with the stub for this Python beside its backend."""
    home = tmp_path_factory.mktemp("triton")
    shutil.copytree(get_root_module_path() / "tritonserver", home / "t", ignore=shutil.ignore_patterns("*stubs"))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(get_stub_path(version), home / "t/backends/python/triton_python_backend_stub")
    return home / "t"


@contextlib.contextmanager
def serving(repository: Path, home: Path, log: Path, *options: str):
    """`start.sh` with the wheel's server."""
    ports = Settings(http=0, grpc=0, metrics=0, page=0).chosen()
    environment = {
        **os.environ,
        "TRITONSERVER": str(home / "bin/tritonserver"),
        "PYTHON": sys.executable,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{libpython_folder()}:{get_libs_path()}",
        # The wheel's server starts python3 of the PATH, whose packages are not always this one's.
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path.endswith("site-packages")),
    }
    words = [
        str(repository / "start.sh"),
        f"--backend-directory={home / 'backends'}",
        f"--http-port={ports.http}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-port={ports.metrics}",
        *options,
    ]
    with open(log, "wb") as file:
        process = subprocess.Popen(words, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield process, f"127.0.0.1:{ports.grpc}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_triton_reads_the_configurations_and_misses_its_backend_alone(tmp_path, triton_home):
    engines = [write_plan(tmp_path / "e", capability=each) for each in ("9.0", "8.0")]
    write_repository(tmp_path / "out", engines, Tuning(), Limits())
    log = tmp_path / "log"
    with serving(tmp_path / "out", triton_home, log) as (process, _):
        process.wait(60)  # a model that does not load ends the server
    text = log.read_text()
    # Without a GPU it says so; the rest is about models.
    errors = [line for line in text.splitlines() if re.match(r"E\d{4} ", line) and "CudaDriverHelper" not in line]
    missing = "unable to find backend library for backend 'tensorrt'"
    assert any(missing in line for line in errors), text
    # The ensemble misses the network, and nothing else is wrong.
    assert not [line for line in errors if missing not in line and "depends on 'tiny-16'" not in line], errors
    assert "successfully loaded 'tiny-16_decode'" in text and "successfully loaded 'tiny-16_encode'" in text


# Ways to spoil our configuration of a network, and what Triton's own parser then says of it.
SPOILT = {
    "unknown": ("max_batch_size:", "most_batch_size:", 'no field named "most_batch_size"'),
    "type": ("TYPE_UINT8", "TYPE_UINT9", '"TYPE_UINT9"'),
    "number": ("count: 2", 'count: "two"', "Expected integer"),
    "graph": ("graphs: true", "graphs: perhaps", '"perhaps"'),
    "map": ("cc_model_filenames {", "cc_model_filename {", 'no field named "cc_model_filename"'),
    "warm-up": ("random_data: true", "random_datum: true", 'no field named "random_datum"'),
}


def test_tritons_parser_refuses_what_is_spoilt_and_names_it(tmp_path, triton_home):
    write_repository(tmp_path / "out", [write_plan(tmp_path / "e")], Tuning(instances=2), Limits())
    models = tmp_path / "out/models"
    config = (models / "tiny-16/config.pbtxt").read_text()
    shutil.rmtree(models)
    for name, (right, wrong, _) in SPOILT.items():
        assert right in config, (right, config)
        (models / name / "1").mkdir(parents=True)
        (models / name / "config.pbtxt").write_text(config.replace(right, wrong, 1).replace("tiny-16", name))
    log = tmp_path / "log"
    with serving(tmp_path / "out", triton_home, log) as (process, _):
        process.wait(60)
    lines = log.read_text().splitlines()
    for name, (_, _, said) in SPOILT.items():
        assert any(said in line for line in lines), (name, said, lines)
    assert not any("unable to find backend" in line for line in lines)  # none of them came as far as that


@pytest.fixture(scope="module")
def answering(tmp_path_factory, triton_home):
    folder = tmp_path_factory.mktemp("repository")
    limits = Limits(pixels=40_000, file_bytes=100_000)
    write_repository(folder / "out", [write_plan(folder / "e")], Tuning(format="webp", instances=1), limits)
    network = folder / "out/models/tiny-16"
    (network / "1/model.py").write_text(STAND_IN)
    config = (network / "config.pbtxt").read_text()
    assert config.count('backend: "tensorrt"') == 1
    config = config.replace('backend: "tensorrt"', 'backend: "python"').replace("KIND_GPU", "KIND_CPU")
    lines = [line for line in config.splitlines() if not line.startswith("default_model_filename")]
    config = "\n".join(lines)
    start = config.index("cc_model_filenames")
    config = config[:start] + config[config.index("}\n", start) + 2 :]
    (network / "config.pbtxt").write_text(config)
    log = folder / "log"
    with serving(folder / "out", triton_home, log) as (process, url), triton.InferenceServerClient(url) as client:
        until = time.monotonic() + 60
        while not _is_ready(client):
            assert process.poll() is None and time.monotonic() < until, log.read_text()[-4000:]
            time.sleep(0.2)
        yield client


def _is_ready(client):
    try:
        return client.is_server_ready()
    except triton.InferenceServerException:
        return False


def ask(client, *files):
    given = triton.InferInput("image", [len(files), 1], "BYTES")
    array = np.empty((len(files), 1), object)
    array[:, 0] = files
    given.set_data_from_numpy(array)
    return client.infer("tiny-16_picture", [given]).as_numpy("dog").reshape(-1)


def picture(seed, size=(50, 40), kind="JPEG"):
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def test_a_pictures_bytes_become_a_dogs_bytes(answering):
    files = [picture(1), picture(2, kind="PNG")]
    dogs = ask(answering, *files)
    for file, dog in zip(files, dogs, strict=True):
        opened = Image.open(io.BytesIO(dog))
        assert opened.format == "WEBP"
        assert np.array_equal(np.asarray(opened), 255 - read_image(file, 16))


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (b"no picture", "is not an image; expected PNG"),
        (picture(1)[:300], "damaged or truncated"),
        (picture(1, (250, 200)), "250 x 200 pixels"),
        (b"\xff\xd8\xff" + b"0" * 100_000, "more than the 0.0953674 MiB allowed"),
    ],
)
def test_what_is_no_picture_is_a_bad_request_of_its_own(answering, file, reason):
    with pytest.raises(triton.InferenceServerException) as refused:
        ask(answering, file)
    assert reason in str(refused.value) and "INVALID_ARGUMENT" in str(refused.value.status())
    assert len(ask(answering, picture(3))) == 1
