from __future__ import annotations

import sys
import threading
from types import ModuleType

import numpy as np
import pytest

from runtime import cuda
from runtime.errors import GpuLost, InputError, MissingExtra, ToolchainError
from runtime.gpu import find_gpus, no_gpu_reason
from tests.runtime.fake_cuda import FakeCuda


@pytest.fixture
def fake(monkeypatch):
    fake = FakeCuda()
    monkeypatch.setattr(cuda, "bindings", lambda: fake)
    return fake


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.gpu)])
def api(request, monkeypatch):
    if request.param == "real":
        if not find_gpus():
            pytest.skip(no_gpu_reason())
        return cuda.bindings()
    return request.getfixturevalue("fake")


def test_copies_there_and_back(api):
    with cuda.Stream() as stream, cuda.PinnedBuffer(64) as here, cuda.DeviceBuffer(64) as there:
        array = here.view(np.dtype(np.float32), (4, 4))
        array[:] = np.arange(16).reshape(4, 4)
        cuda.copy_to_device(there, here, 64, stream)
        stream.synchronize()
        array[:] = 0
        cuda.copy_to_host(here, there, 64, stream)
        stream.synchronize()
        np.testing.assert_array_equal(array.ravel(), np.arange(16))


def test_a_graph_replays_its_copies(api):
    with cuda.Stream() as stream, cuda.PinnedBuffer(8) as source, cuda.PinnedBuffer(8) as target:
        with cuda.DeviceBuffer(8) as there:
            given, got = (buffer.view(np.dtype(np.uint8), (8,)) for buffer in (source, target))

            def work():
                cuda.copy_to_device(there, source, 8, stream)
                cuda.copy_to_host(target, there, 8, stream)

            got[:] = 0
            with cuda.Graph(stream, work) as graph:
                assert not got.any()
                for value in (7, 9):
                    given[:] = value
                    graph.launch(stream)
                    stream.synchronize()
                    assert (got == value).all()


def test_an_error_in_a_capture_leaves_the_stream_usable(api):
    with cuda.Stream() as stream, cuda.PinnedBuffer(8) as here, cuda.DeviceBuffer(8) as there:

        def work():
            cuda.copy_to_device(there, here, 8, stream)
            raise KeyError("in the work")

        with pytest.raises(KeyError, match="in the work"):
            cuda.Graph(stream, work)
        cuda.copy_to_device(there, here, 8, stream)
        stream.synchronize()


@pytest.mark.gpu
def test_events_on_a_gpu():
    if not find_gpus():
        pytest.skip(no_gpu_reason())
    with cuda.Stream() as stream, cuda.Event() as start, cuda.Event() as end, cuda.DeviceBuffer(1 << 26) as there:
        with cuda.PinnedBuffer(1 << 26) as here:
            start.record(stream)
            cuda.copy_to_device(there, here, 1 << 26, stream)
            end.record(stream)
            end.synchronize()
            assert 0 < end.milliseconds_since(start) < 1000


def test_everything_is_freed_once(fake):
    with cuda.Stream() as stream, cuda.Event(), cuda.DeviceBuffer(8), cuda.PinnedBuffer(8):
        with cuda.Graph(stream, lambda: None):
            assert len(fake.alive) == 5
    assert not fake.alive
    stream.close()
    with pytest.raises(ToolchainError, match="this Stream is closed; make a new one"):
        stream.synchronize()


def test_sizes_are_checked(fake):
    with cuda.Stream() as stream, cuda.PinnedBuffer(8) as here, cuda.DeviceBuffer(4) as there:
        with pytest.raises(InputError, match="cannot copy 8 bytes from a buffer of 8 to one of 4"):
            cuda.copy_to_device(there, here, 8, stream)
        with pytest.raises(InputError, match="an array of 12 bytes does not fit in a buffer of 8 bytes"):
            here.view(np.dtype(np.float32), (3,))
        assert here.view(np.dtype(np.float32), (0, 3)).shape == (0, 3)
    with pytest.raises(InputError, match="a buffer of -1 bytes was asked for; expected 0 or more"):
        cuda.DeviceBuffer(-1)
    with cuda.DeviceBuffer(0) as empty:
        assert empty.address


def test_errors_are_translated(fake):
    with pytest.raises(ToolchainError) as error:
        cuda.DeviceBuffer(1 << 31)
    assert str(error.value) == (
        "the GPU is out of memory (cudaErrorMemoryAllocation: what went wrong); "
        "use a smaller batch or close other programs"
    )
    with pytest.raises(
        ToolchainError, match=r"no NVIDIA GPU can be used \(cudaErrorNoDevice: .*; run the ONNX file in"
    ):
        cuda.set_device(3)
    with pytest.raises(ToolchainError, match=r"CUDA failed \(cudaErrorInvalidValue: what went wrong\)"):
        cuda.check(fake._free(5))


def test_an_error_that_stays_says_to_start_anew(fake):
    fake.lost = True
    for call in (cuda.Stream, lambda: cuda.DeviceBuffer(8), lambda: cuda.set_device(0)):
        with pytest.raises(GpuLost) as error:
            call()
        reason = "cudaErrorIllegalAddress: what went wrong"
        assert str(error.value) == f"the GPU stopped working for this process ({reason}); start the process anew"


def test_which_errors_stay_is_what_cuda_says_of_them():
    real = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    texts = {error.name: " ".join((error.__doc__ or "").split()) for error in real.cudaError_t}
    said = [name for name, text in texts.items() if "must be terminated and relaunched" in text]
    if not said:
        pytest.skip("these cuda-bindings do not explain their errors")
    # An older CUDA does not know the newest of them.
    assert set(said) == {name for name in cuda._STICKY if hasattr(real.cudaError_t, name)}


def test_a_device_is_chosen_once_a_thread(fake):
    for _ in range(3):
        cuda.use_device(0)
    thread = threading.Thread(target=cuda.use_device, args=(0,))
    thread.start()
    thread.join()
    before = fake.device_choices
    fake._thread.device = 2
    cuda.use_device(0)
    cuda.use_device(0)
    assert fake.device_choices == before + 1


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda", ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    cuda.bindings.cache_clear()
    try:
        with pytest.raises(
            MissingExtra, match=r"running an engine needs the package 'cuda-bindings'.*pip install cuda-"
        ):
            cuda.Stream()
    finally:
        cuda.bindings.cache_clear()


def test_the_names_used_exist():
    real = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    used = [name for name in dir(FakeCuda) if name.startswith("cuda")]
    assert len(used) > 20
    assert [
        name
        for name in (*used, "cudaEventRecord", "cudaEventSynchronize", "cudaEventElapsedTime")
        if not hasattr(real, name)
    ] == []
    for group in ("cudaStreamCaptureMode", "cudaMemcpyKind"):
        for name in vars(getattr(FakeCuda, group)):
            assert hasattr(getattr(real, group), name)
    for name in cuda._NO_GPU:
        assert hasattr(real.cudaError_t, name)


def test_no_gpu_is_one_line():
    if find_gpus():
        pytest.skip("this machine has a GPU")
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    with pytest.raises(ToolchainError, match=r"no NVIDIA GPU can be used \(cudaError"):
        cuda.Stream()
