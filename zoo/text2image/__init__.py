"""Text to picture: a diffusers pipeline whose denoiser this toolchain can export, build, quantize and run.

request.py     what is asked, and its bounds            loading.py   a pipeline of a folder, safely
painter.py     request → pictures, step by step          latents.py   adjusting latents on the way
calls.py       what a pipeline gives its denoiser        recipe.py    the denoiser as a recipe
denoiser.py    a runner in the denoiser's place          quantized.py its INT8 form
caption.py     picture → prompt                          upscale.py   picture → larger picture
"""
