"""From a neutral ONNX file to an engine that is proved: lowering, building, caching, gating. Needs no torch."""
