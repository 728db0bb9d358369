"""`start.sh` of a model repository: Triton with the plugins its engines need."""

from __future__ import annotations

from collections.abc import Sequence

_SCRIPT = """\
#!/usr/bin/env bash
# Starts Triton Inference Server on the models beside this file; further options are handed on.
#
# The engines were built by TensorRT {version}: this Triton's TensorRT must be exactly that one.
# Listens on this machine alone; HOST=0.0.0.0 lets others in.
set -euo pipefail
here="$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)"
host="${{HOST:-127.0.0.1}}"
server="${{TRITONSERVER:-tritonserver}}"

command -v "$server" > /dev/null || {{
  echo "error: no $server: run this in a Triton container, or let TRITONSERVER name it" >&2; exit 2; }}
"${{PYTHON:-python3}}" -c 'import numpy, PIL' || {{
  echo "error: the Python models need: pip install 'numpy' 'pillow>=12'" >&2; exit 2; }}

# Configurations are complete: what Triton would have to guess is an error.
exec "$server" \\
  --model-repository="$here/models" \\
  --disable-auto-complete-config \\
  --http-address="$host" --grpc-address="$host" --metrics-address="$host" \\
{plugins}  "$@"
"""
_PLUGINS = """\
  --backend-config=tensorrt,plugins="{paths}" \\
"""


def start_script(plugins: Sequence[str], tensorrt: str) -> str:
    """The script; `plugins` are names of libraries in `plugins/` beside it.

    Triton's TensorRT backend loads them before any engine: an engine with fused kernels cannot be read without.
    """
    paths = ";".join(f"$here/plugins/{name}" for name in plugins)
    return _SCRIPT.format(version=tensorrt, plugins=_PLUGINS.format(paths=paths) if plugins else "")
