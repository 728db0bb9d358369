"""Large constants that lowering made, written into a file of external data beside the neutral graph's own."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from runtime.files import atomic_path, sha256_text

# Smaller ones stay in the graph, where tools that read no external data see them.
_INLINE_BYTES = 1024
# What maps a file into memory likes its tensors to begin with a cache line.
_ALIGNMENT = 256


def write_new_data(model: ir.Model, neutral: Path) -> Path | None:
    """Write the large initializers that lie in no file yet beside `neutral`, and have the model refer to them there.

    One tensor is in memory at a time. The file is named after what is in it, not after kernels or batch: lowered graphs
    that lay out the same weights share it. Returns its path, None where there is nothing to write.
    """
    new = [
        value
        for value in model.graph.initializers.values()
        if value.const_value is not None
        and not isinstance(value.const_value, ir.ExternalTensor)
        and value.const_value.nbytes > _INLINE_BYTES
    ]
    if not new:
        return None
    listed = "\n".join(f"{value.name} {value.dtype} {value.shape}" for value in new)
    path = neutral.with_name(f"{neutral.stem}.laid-out_{sha256_text(listed)[:8]}.data")
    external = []
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        for value in new:
            tensor = value.const_value
            assert tensor is not None and value.shape is not None
            file.write(bytes(-file.tell() % _ALIGNMENT))
            offset = file.tell()
            length = file.write(tensor.tobytes())
            at = (path.name, offset, length, tensor.dtype)
            external.append(ir.ExternalTensor(*at, shape=value.shape, name=str(value.name), base_dir=path.parent))
    for value, tensor in zip(new, external, strict=True):
        value.const_value = tensor
    return path
