"""ConvNeXt on Tiny-ImageNet: an exact network, its training in four forms, its inference in every form there is here.

config.py      sizes, named instances      activations.py  GELU (tanh), ReLU, Hardswish, FastSwish
model.py       the network                 checkpoint.py   one safetensors file
recipe.py      what the toolchain takes    fused.py        depthwise convolution and norm as custom operators
data.py        Tiny-ImageNet's folder      synthetic.py    a drawn stand-in of the same layout
train.py       its command line            loop.py         epochs; state.py: going on where a run stopped
fake_quant.py  quantization in training    int8.py         Q/DQ ONNX, post-training and after it
bench.py       its command line            profile.py      a flame chart; operators.py: a chart of the ONNX file
"""
