"""The kernels on a real GPU: at most twice the error of PyTorch's attention in that precision, both against FP64."""

from __future__ import annotations

import pytest

from engines.kernels.driver import LoadedPlan, bind
from engines.kernels.problem import Unsupported
from engines.kernels.sizes import evaluate
from runtime.gpu import find_gpus, no_gpu_reason
from tests.engines.kernels.cases import cases

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not find_gpus(), reason=f"no GPU: {no_gpu_reason()}"),
]
GROUPS = sorted({(p.precision, p.layout, p.queries, p.keys) for p, _ in cases()})


def reference(torch, problem, tensors, dtype):
    """Q, K, V as the kernel's products see them, and softmax(scale Q K^T) V in `dtype`."""
    p = problem
    batch = tensors[0].shape[0]
    wide = [tensor.to(torch.float64) for tensor in tensors]
    if p.layout == "packed":
        parts = wide[0].reshape(batch, p.queries, 3, p.heads, p.head_size).permute(2, 0, 3, 1, 4)
        q, k, v = parts[0], parts[1], parts[2]
        extra = wide[1:]
    else:
        q, k, v = wide[:3]
        if p.layout == "tokens":
            q, k, v = (x.reshape(batch, -1, p.heads, p.head_size).transpose(1, 2) for x in (q, k, v))
        extra = wide[3:]
    if p.qk_norm is not None:
        q, k = (
            x / (x.square().mean(-1, keepdim=True) + p.qk_norm).sqrt() * gain
            for x, gain in zip((q, k), extra, strict=False)
        )
        extra = extra[2:]
    if p.rope:
        cos, sin = extra
        half = p.head_size // 2

        def turned(x):
            a, b = x[..., :half], x[..., half:]
            return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

        q, k = turned(q), turned(k)
    q, k = (x.to(dtype).to(torch.float64) for x in (q, k))
    # One sample at a time: 4096 x 4096 logits in FP64 are large.
    rows = [torch.softmax(q[i] @ k[i].mT * p.scale, -1) @ v[i] for i in range(batch)]
    return (q, k, v), torch.stack(rows)


def relative(torch, got, expected):
    return float((got.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("group", GROUPS, ids=lambda g: "-".join(map(str, g)))
@pytest.mark.parametrize("logits", [1.0, 30.0], ids=["usual", "large"])
def test_error_is_at_most_twice_that_of_pytorch(group, logits, record_property):
    torch = pytest.importorskip("torch")
    from engines.kernels.plan import make_plan

    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[group[0]]
    done = 0
    answers = {}
    for problem, variant in cases():
        if (problem.precision, problem.layout, problem.queries, problem.keys) != group:
            continue
        try:
            plan = make_plan(problem, variant, "9.0")
        except Unsupported:
            continue
        for batch in sorted({1, problem.batch[2]} if problem.batch[0] == 1 else {problem.batch[2]}):
            shapes = [[evaluate(size, {"B": batch}) for size in tensor.shape] for tensor in plan.inputs]
            if (problem, batch) not in answers:
                answers.clear()
                generator = torch.Generator("cuda").manual_seed(batch)
                tensors = []
                for tensor, shape in zip(plan.inputs, shapes, strict=True):
                    if tensor.dtype != "fp32":
                        drawn = torch.randn(shape, generator=generator, device="cuda") * logits**0.5
                        tensors.append(drawn.to(dtype))
                    elif len(shape) == 1:
                        tensors.append(torch.rand(shape, generator=generator, device="cuda") + 0.5)
                    else:
                        angles = torch.arange(shape[0] * shape[1], device="cuda").reshape(shape) * 0.37
                        tensors.append(torch.cos(angles) if len(tensors) % 2 else torch.sin(angles))
                (q, k, v), expected = reference(torch, problem, tensors, dtype)
                theirs = torch.nn.functional.scaled_dot_product_attention(
                    q.to(dtype), k.to(dtype), v.to(dtype), scale=problem.scale
                )
                answers[problem, batch] = tensors, expected, relative(torch, theirs, expected)
            tensors, expected, bar = answers[problem, batch]
            names = bind(plan, shapes)
            output = torch.full([evaluate(size, names) for size in plan.outputs[0].shape], float("nan"), device="cuda")
            output = output.to(dtype)
            with LoadedPlan(plan) as loaded:
                workspace = torch.full([loaded.workspace_bytes(names) + 256], 255, dtype=torch.uint8, device="cuda")
                prepared = loaded.prepare(
                    [t.data_ptr() for t in tensors], [output.data_ptr()], workspace.data_ptr(), names
                )
                torch.cuda.synchronize()
                prepared.launch(torch.cuda.current_stream().cuda_stream)
                torch.cuda.synchronize()
            if problem.output == "tokens":
                heads = output.reshape(batch, problem.queries, problem.heads, problem.head_size).transpose(1, 2)
            else:
                heads = output
            error = relative(torch, heads, expected)
            # An exact answer leaves nothing to be twice of: then half a unit of the last place is the bar.
            floor = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}[dtype]
            assert error <= max(2 * bar, floor), f"{variant}, {problem}, batch {batch}: {error:.3g}, PyTorch {bar:.3g}"
            done += 1
    record_property("launches", done)
    assert done
