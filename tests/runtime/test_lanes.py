"""Several runs at once: nothing is shared, nobody waits for ever, and the end is orderly, whatever happened before."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import numpy as np
import pytest

from runtime import cuda
from runtime.errors import Busy, GpuLost, InputError, ToolchainError
from tests.runtime.fake_cuda import FakeCuda
from tests.runtime.fake_tensorrt import Mode, Severity, Tensor
from tests.runtime.stand_ins import image_network, images, runner_lanes
from tests.runtime.test_pool import start, until


def in_threads(count, work):
    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("lanes", [1, 2, 3])
@pytest.mark.parametrize("cuda_graph", [True, False])
@pytest.mark.parametrize("style", ["8.6", "10"])
def test_as_many_run_at_once_as_there_are_lanes(load, api, style, cuda_graph, lanes):
    runner, engine = load(image_network(), style, cuda_graph=cuda_graph, lanes=lanes)
    engine.seconds = 0.004  # long enough for the other threads to come by
    if isinstance(api, FakeCuda):
        api.seconds = 0.004
    wrong = []
    together = threading.Barrier(6)

    def work(seed):
        together.wait()
        out = {"dog": np.empty((4, 8, 8, 3), np.uint8)}
        for turn in range(12):
            given = images(1 + (seed + turn) % 4, seed)
            if not np.array_equal(runner.infer({"image": given})["dog"], given):
                wrong.append((seed, turn))
            runner.infer_into({"image": images(4, turn)}, out)
            if not np.array_equal(out["dog"], images(4, turn)):
                wrong.append((seed, turn, "into"))

    in_threads(6, work)
    assert not wrong
    assert engine.most_at_once <= lanes
    if not cuda_graph:
        assert engine.most_at_once == lanes
    elif isinstance(api, FakeCuda):
        assert api.most_at_once == lanes
        assert api.most_capturing_at_once == 1
        assert api.captures <= 4 * lanes  # one a shape and lane
    assert len(runner_lanes(runner)) == runner.lanes == lanes


def test_one_thread_stays_in_one_lane(load):
    runner, engine = load(image_network())
    for _ in range(5):
        runner.infer({"image": images(2)})
    assert sorted(len(lane._replays) for lane in runner_lanes(runner)) == [0, 1]
    assert engine.contexts == 2  # one to measure, one for the shape


def occupied(load, seconds=0.3, **options):
    """A runner of one lane with a run of so many seconds under way."""
    runner, engine = load(image_network(), lanes=1, cuda_graph=False, **options)
    engine.seconds = seconds
    thread, got = start(lambda: runner.infer({"image": images(1)}))
    until(lambda: engine.memory_in_use)
    return runner, engine, thread, got


def test_a_taken_lane_is_waited_for_no_longer_than_allowed(load):
    runner, engine, thread, got = occupied(load)
    with pytest.raises(Busy) as error:
        runner.infer({"image": images(1)}, timeout=0.01)
    assert str(error.value) == ("none of 1 lanes of this runner came free within 0.01 s; try again, or wait longer")
    with pytest.raises(Busy, match="all 1 lanes of this runner are taken; try again, or wait longer than 0 s"):
        runner.infer_into({"image": images(1)}, {"dog": np.empty((1, 8, 8, 3), np.uint8)}, timeout=0)
    engine.seconds = 0
    np.testing.assert_array_equal(runner.infer({"image": images(3)}, timeout=5)["dog"], images(3))
    thread.join()
    np.testing.assert_array_equal(got[0]["dog"], images(1))


def test_only_so_many_wait(load):
    runner, _, thread, _ = occupied(load, most_waiting=1)
    second, got = start(lambda: runner.infer({"image": images(2)}))
    until(lambda: runner._pool._waiting)
    with pytest.raises(Busy, match="all 1 lanes of this runner are taken and 1 calls wait already; try again later"):
        runner.infer({"image": images(3)})
    thread.join()
    second.join()
    np.testing.assert_array_equal(got[0]["dog"], images(2))


def test_a_bad_feed_waits_for_nothing(load):
    runner, _, thread, _ = occupied(load)
    began = time.monotonic()
    with pytest.raises(InputError, match="there is no input 'dog'"):
        runner.infer({"dog": images(1)})
    assert time.monotonic() - began < 0.2
    thread.join()


def test_closing_waits_for_who_runs_and_refuses_who_waits(load, api):
    runner, _, thread, got = occupied(load)
    waiter, refused = start(lambda: runner.infer({"image": images(1)}))
    until(lambda: runner._pool._waiting)
    runner.close()
    thread.join()
    waiter.join()
    np.testing.assert_array_equal(got[0]["dog"], images(1))
    assert str(refused[0]) == "this TensorRT runner is closed; make a new one"
    if isinstance(api, FakeCuda):
        assert not api.alive
    runner.close()


def test_each_thing_is_freed_once_in_order(load, monkeypatch):
    runner, _ = load(image_network(), "8.6", wait="block")
    for _ in range(2):
        runner.infer({"image": images(1)})
    (replay,) = [replay for lane in runner_lanes(runner) for replay in lane._replays.values()]
    freed = []
    weakref.finalize(replay._context, freed.append, "Context")
    del replay
    close = cuda._Held.close

    def noting(self):
        if self._handle is not None:
            freed.append(type(self).__name__)
        close(self)

    monkeypatch.setattr(cuda._Held, "close", noting)
    runner.close()
    buffers = ["DeviceBuffer", "PinnedBuffer"] * 2 + ["DeviceBuffer"]  # the last one is the activations
    lane = [*buffers, "Event", "Stream"]
    replay = ["Graph", "Context"]
    assert freed in ([*replay, *lane, *lane], [*lane, *replay, *lane])


@pytest.mark.parametrize("cuda_graph", [True, False])
def test_a_failing_run_loses_no_lane(load, cuda_graph):
    runner, engine = load(image_network(), lanes=2, cuda_graph=cuda_graph)
    engine.fail = True
    for count in range(1, 6):
        with pytest.raises(ToolchainError, match="TensorRT could not run the engine: it is broken"):
            runner.infer({"image": images(count)}, timeout=0)
    engine.fail = False
    assert len(runner_lanes(runner)) == 2
    np.testing.assert_array_equal(runner.infer({"image": images(1)}, timeout=0)["dog"], images(1))


def test_each_thread_gets_its_own_error(load):
    _, engine = load(image_network())
    log = engine.log

    def fail(index):
        log.log(Severity.ERROR, f"error\nof {index}")
        together.wait()  # all have failed before the first asks why
        got[index] = log.last()

    got, together = {}, threading.Barrier(4)
    in_threads(4, fail)
    assert got == {index: f": error of {index}" for index in range(4)} and log.last() == ""
    in_threads(1, lambda _: log.log(Severity.ERROR, "of a thread of TensorRT's own"))
    assert (log.last(), log.last()) == (": of a thread of TensorRT's own", "")


def test_an_interrupted_run_loses_no_lane(load, monkeypatch):
    runner, _ = load(image_network(), lanes=1)
    (lane,) = runner_lanes(runner)
    waits = []

    def interrupted():
        waits.append(None)
        if len(waits) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lane, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            runner.infer({"image": images(1)})
    assert len(waits) == 2  # what was started came to its end before the lane was given back
    np.testing.assert_array_equal(runner.infer({"image": images(1)}, timeout=0)["dog"], images(1))


def test_a_lost_gpu_ends_it_for_all(load, api):
    if not isinstance(api, FakeCuda):
        pytest.skip("a real GPU is not broken for a test")
    runner, _ = load(image_network(), lanes=1)
    runner.infer({"image": images(1)})
    api.lost = True
    said = "the GPU stopped working for this process (cudaErrorIllegalAddress: what went wrong); start the process anew"
    for _ in range(3):
        with pytest.raises(GpuLost) as error:
            runner.infer({"image": images(1)})
        assert str(error.value) == said and error.value.exit_code == 1
    runner.close()
    runner.close()
    with pytest.raises(GpuLost):
        runner.infer({"image": images(1)})


def test_a_lost_gpu_is_told_from_a_run_that_failed(load, api):
    """TensorRT only says that it could not run; the stream says why."""
    if not isinstance(api, FakeCuda):
        pytest.skip("a real GPU is not broken for a test")
    runner, engine = load(image_network(), lanes=1, cuda_graph=False)
    runner.infer({"image": images(1)})
    (lane,) = runner_lanes(runner)
    (replay,) = lane._replays.values()

    def fail(stream):
        api.lost = True
        engine.log.log(0, "")
        return False

    replay._context.execute_async_v3 = fail
    with pytest.raises(GpuLost, match="start the process anew") as error:
        runner.infer({"image": images(1)})
    assert str(error.value.__cause__).startswith("TensorRT could not run the engine")


def test_waiting_threads_of_a_lost_gpu_are_told(load, api):
    if not isinstance(api, FakeCuda):
        pytest.skip("a real GPU is not broken for a test")
    runner, _, thread, got = occupied(load)
    waiter, refused = start(lambda: runner.infer({"image": images(1)}))
    until(lambda: runner._pool._waiting)
    api.lost = True
    thread.join()
    waiter.join()
    assert type(got[0]) is type(refused[0]) is GpuLost


@pytest.mark.parametrize("wait", ["spin", "block"])
def test_how_a_thread_waits(load, api, wait):
    runner, _ = load(image_network(), wait=wait)
    for _ in range(3):
        np.testing.assert_array_equal(runner.infer({"image": images(1)})["dog"], images(1))
    if isinstance(api, FakeCuda):
        assert api.waits == [wait] * 3


def test_wrong_options(load):
    with pytest.raises(InputError, match="wait is 'sleep'; expected one of spin, block"):
        load(image_network(), wait="sleep")
    for lanes in (0, 65):
        with pytest.raises(InputError, match=f"{lanes} lanes were asked for; expected 1 to 64"):
            load(image_network(), lanes=lanes)


def test_a_plan_whose_profile_cannot_be_shared(load, monkeypatch):
    """8.6, with an engine built without the preview feature."""
    from tests.runtime.fake_tensorrt import Engine

    made = Engine.__init__

    def without(self, *arguments):
        made(self, *arguments)
        self.profile_sharing = False

    monkeypatch.setattr(Engine, "__init__", without)
    runner, _ = load(image_network(), "8.6")
    runner.infer({"image": images(1)})
    with pytest.raises(ToolchainError) as error:
        runner.infer({"image": images(2)})
    assert str(error.value) == (
        "TensorRT does not let several contexts share the engine's optimisation profile: Profile 0 has been chosen by "
        "another IExecutionContext; build the engine again, with the preview feature PROFILE_SHARING_0806"
    )
    np.testing.assert_array_equal(runner.infer({"image": images(1)})["dog"], images(1))


def test_a_threads_gpu_is_chosen_once_and_when_another_was_chosen(load, api):
    if not isinstance(api, FakeCuda):
        pytest.skip("a real GPU does not count")
    runner, _ = load(image_network())

    def work(index):
        for _ in range(5):
            runner.infer({"image": images(1)})

    before = api.device_choices
    in_threads(3, work)
    assert api.device_choices - before == 3
    api._thread.device = 1  # as another library would
    runner.infer({"image": images(1)})
    assert api.cudaGetDevice()[1] == 0


def test_the_plan_is_handed_over_mapped_and_let_go(load):
    _, engine = load(image_network())
    assert isinstance(engine.plan, memoryview)
    with pytest.raises(ValueError, match="released"):
        engine.plan[0]


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ({}, r"output 'dog' is missing; expected uint8 \[2, 8, 8, 3\]"),
        ({"dog": [1]}, r"output 'dog' is a list; expected uint8 \[2, 8, 8, 3\]"),
        ({"dog": np.empty((1, 8, 8, 3), np.uint8)}, r"output 'dog' is uint8 \[1, 8, 8, 3\]; expected uint8 \[2, 8"),
        ({"dog": np.empty((2, 8, 8, 3), np.int8)}, r"output 'dog' is int8 \[2, 8, 8, 3\]; expected uint8 \[2, 8"),
        ({"dog": np.broadcast_to(np.uint8(0), (2, 8, 8, 3))}, r"output 'dog' is read-only uint8 \[2, 8, 8, 3\]; exp"),
        ({"dog": np.empty((2, 8, 8, 3), np.uint8), "cat": 1}, "there is no output 'cat'; expected 'dog'"),
    ],
)
def test_outputs_that_do_not_fit(load, outputs, said):
    runner, engine = load(image_network())
    with pytest.raises(InputError, match=said):
        runner.infer_into({"image": images(2)}, outputs)
    assert engine.runs == 0


def test_into_arrays_that_lie_oddly(load):
    runner, _ = load([Tensor("x", Mode.INPUT, (3, 4), "FLOAT"), Tensor("y", Mode.OUTPUT, (3, 4), "FLOAT")])
    given = np.arange(12, dtype=np.float32).reshape(4, 3).T
    turned = np.zeros((4, 3), np.float32).T
    swapped = {"x": given.astype(">f4")}
    for feed in ({"x": given}, swapped, {"x": given.view(np.matrix)}):
        turned[:] = 0
        runner.infer_into(feed, {"y": turned})
        np.testing.assert_array_equal(turned, given)


def test_python_adds_little_to_a_replay(load, api, capsys):
    """What the runner adds to the copies and CUDA calls themselves; the bound allows for a busy machine."""
    runner, _ = load(image_network())
    given, out = images(1), {"dog": np.empty((1, 8, 8, 3), np.uint8)}
    feed = {"image": given}
    for _ in range(3):
        runner.infer_into(feed, out)
    lane = next(each for each in runner_lanes(runner) if each._replays)
    (replay,) = lane._replays.values()
    graph, stream = replay._graph.handle, lane._stream.handle
    launch, synchronize = api.cudaGraphLaunch, api.cudaStreamSynchronize

    def bare():
        np.copyto(replay.inputs[0], given)
        launch(graph, stream)
        synchronize(stream)
        np.copyto(out["dog"], replay.outputs[0][1])

    ways = {
        "bare calls": bare,
        "infer_into": lambda: runner.infer_into(feed, out),
        "infer": lambda: runner.infer(feed),
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    gc.disable()
    try:
        for _ in range(200):
            for name, way in ways.items():
                began = time.perf_counter()
                for _ in range(10):
                    way()
                took[name].append((time.perf_counter() - began) * 1e5)
    finally:
        gc.enable()
    microseconds = {name: min(each) for name, each in took.items()}  # the least: others use this machine too
    with capsys.disabled():
        print("\na replay, microseconds:", {name: round(value, 1) for name, value in microseconds.items()}, end=" ")
    assert microseconds["infer_into"] - microseconds["bare calls"] < 30
    assert microseconds["infer"] - microseconds["bare calls"] < 60
