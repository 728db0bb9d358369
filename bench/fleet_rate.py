"""How fast Ray Data gives out tasks and pictures here: what `fleet.capacity` takes for its driver.

    python -m bench.fleet_rate --output bench/results/fleet/ray_cpu.json

The network is one subtraction and pictures have 64 pixels, so that what is left is Ray, files and codecs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.machine import machine
from fleet.drive import drive
from fleet.in_process import in_process
from fleet.on_ray import RayPool
from fleet.opening import open_network
from fleet.task import Identity, open_task
from runtime.files import write_text
from runtime.images import encode_image
from runtime.place import Place, open_place

_SIDE = 8
_IDENTITY = Identity("inverter", "fp32", "0" * 64, "0" * 64)


def main() -> None:
    """Measure, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=4096)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cats = open_place(Path(folder, "cats"))
        data = encode_image(np.full((_SIDE, _SIDE, 3), 77, np.uint8), ".png")
        for number in range(args.pictures):
            cats.write(f"{number:06d}.png", data)
        network = _network(Path(folder))
        alone, alone_seconds = _in_process(cats, open_place(Path(folder, "alone")), network)
        with RayPool("local", args.workers, gpu=False) as pool:
            execute = pool.executor(pool.ship(network, "cpu", 1), cats, open_place(Path(folder, "ray")))
            _seconds(execute, args.workers * 64)  # workers are started, Ray's own code is imported
            ray_seconds = _seconds(execute, args.pictures)
            task_seconds = _seconds(execute, args.tasks, company=1)
    result = {
        "machine": machine(["ray", "pyarrow", "onnxruntime", "numpy"]),
        "method": f"pictures of {_SIDE}x{_SIDE} in local folders through one subtraction, {args.workers} Ray workers "
        "on this machine; with Ray each round starts its actors anew, which is counted; tasks are of one picture each",
        "pictures": args.pictures,
        "in_process_pictures_per_second": round(alone / alone_seconds, 1),
        "ray_pictures_per_second": round(args.pictures / ray_seconds, 1),
        "tasks": args.tasks,
        "tasks_per_second": round(args.tasks / task_seconds, 2),
    }
    write_text(args.output, json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def _in_process(cats: Place, dogs: Place, network: Path) -> tuple[int, float]:
    task = open_task(cats, dogs, _IDENTITY)
    with in_process(lambda: open_network(network), cats, dogs) as execute:
        summary = drive(task, execute, lambda what, fraction: None)
    return summary.done, summary.seconds


def _seconds(execute, count: int, company: int | None = None) -> float:  # type: ignore[no-untyped-def]
    began = time.perf_counter()
    names = [f"{number:06d}.png" for number in range(count)]
    done = sum(not (result.fault or result.fatal) for result in execute([(name, name) for name in names], company))
    if done != count:
        raise SystemExit(f"{done} of {count} pictures were done")
    return time.perf_counter() - began


def _network(folder: Path) -> Path:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    shape = ["B", _SIDE, _SIDE, 3]
    ends = [helper.make_tensor_value_info(name, TensorProto.UINT8, shape) for name in ("image", "dog")]
    nodes = [
        helper.make_node("Cast", ["image"], ["wide"], to=TensorProto.INT32),
        helper.make_node("Sub", ["white", "wide"], ["difference"]),
        helper.make_node("Cast", ["difference"], ["dog"], to=TensorProto.UINT8),
    ]
    white = numpy_helper.from_array(np.array(255, np.int32), "white")
    model = helper.make_model(
        helper.make_graph(nodes, "inverter", ends[:1], ends[1:], [white]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=9,
    )
    path = folder / "inverter.onnx"
    onnx.save(model, path)
    return path


if __name__ == "__main__":
    main()
