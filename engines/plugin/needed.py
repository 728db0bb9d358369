"""`python -m engines.plugin.needed`: exit code 0 where engines built here want the plugin library and it is not built.

Exit code 1 says that nothing has to be done. For `make run` and `make engines`, which build the library first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from engines.build import choose_flavor
from engines.form import choose_form, choose_linear
from runtime.errors import InputError
from runtime.gpu import find_gpus
from runtime.plugins import find_plugin


def is_needed(attention: str, flavor_name: str, linear: str = "tensorrt") -> bool:
    """Whether the library is wanted and absent; False also where nothing can be built, which the build itself says."""
    try:
        flavor = choose_flavor(flavor_name)
        gpu = next(iter(find_gpus()), None)
        forms = choose_form(attention, flavor, "fp16", gpu), choose_linear(linear, flavor, "fp16", gpu)
    except InputError:
        return False
    if forms[0] != "plugin" and forms[1] == "tensorrt":
        return False
    try:
        find_plugin(flavor.version or "")
    except InputError:
        return True
    return False


def main(arguments: Sequence[str] | None = None) -> int:
    """See the head of this file."""
    parser = argparse.ArgumentParser(prog="python -m engines.plugin.needed", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--linear", default="auto")
    parser.add_argument("--flavor", default="auto")
    args = parser.parse_args(arguments)
    return 0 if is_needed(args.attention, args.flavor, args.linear) else 1


if __name__ == "__main__":
    sys.exit(main())
