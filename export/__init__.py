"""From a recipe to one neutral ONNX file per precision: bound to no GPU, attention kept as one node."""
