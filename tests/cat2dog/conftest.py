"""Shapes in the signatures of cat2dog's tensor modules are checked by beartype while these tests run."""

import jaxtyping

# Not the whole room: beartype would refuse the impossible configs before the messages under test are made.
_TENSOR_MODULES = ["cat2dog.model", "cat2dog.pixels", "cat2dog.initialise", "cat2dog.exact"]
_hook = jaxtyping.install_import_hook(_TENSOR_MODULES, "beartype.beartype")
