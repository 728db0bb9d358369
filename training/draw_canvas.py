"""A vector canvas: filled, stroked and clipped paths, anti-aliased on the CPU by ThorVG.

ThorVG's own Python wrapper makes ctypes types anew for every path, which costs ten times the drawing itself; so this
file opens the library that the wrapper ships and declares the dozen C functions once.
"""

from __future__ import annotations

import ctypes
import functools

import numpy as np

from runtime.errors import MissingExtra, ToolchainError

Colour = tuple[float, float, float]

_ABGR8888 = 0
_MOVE_TO, _LINE_TO, _CLOSE = 1, 2, 0
_ROUND = 1
_SIGNATURES = {
    "tvg_engine_init": ((ctypes.c_uint,), ctypes.c_int),
    "tvg_swcanvas_create": ((ctypes.c_uint8,), ctypes.c_void_p),
    "tvg_swcanvas_set_target": (
        (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint8),
        ctypes.c_int,
    ),
    "tvg_canvas_add": ((ctypes.c_void_p, ctypes.c_void_p), ctypes.c_int),
    "tvg_canvas_draw": ((ctypes.c_void_p, ctypes.c_bool), ctypes.c_int),
    "tvg_canvas_sync": ((ctypes.c_void_p,), ctypes.c_int),
    "tvg_canvas_destroy": ((ctypes.c_void_p,), ctypes.c_int),
    "tvg_shape_new": ((), ctypes.c_void_p),
    "tvg_shape_append_path": (
        (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint32),
        ctypes.c_int,
    ),
    "tvg_shape_set_fill_color": ((ctypes.c_void_p, *(ctypes.c_uint8,) * 4), ctypes.c_int),
    "tvg_shape_set_stroke_width": ((ctypes.c_void_p, ctypes.c_float), ctypes.c_int),
    "tvg_shape_set_stroke_color": ((ctypes.c_void_p, *(ctypes.c_uint8,) * 4), ctypes.c_int),
    "tvg_shape_set_stroke_join": ((ctypes.c_void_p, ctypes.c_int), ctypes.c_int),
    "tvg_shape_set_stroke_cap": ((ctypes.c_void_p, ctypes.c_int), ctypes.c_int),
    "tvg_paint_set_clip": ((ctypes.c_void_p, ctypes.c_void_p), ctypes.c_int),
}


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        from thorvg_python.engine import THORVG_LIB
    except ImportError as error:
        raise MissingExtra("thorvg-python", "drawing pictures", "thorvg-python") from error
    if THORVG_LIB is None:
        raise ToolchainError("thorvg-python is installed but its library does not load: reinstall thorvg-python")
    library = ctypes.CDLL(THORVG_LIB._name)
    for name, (arguments, result) in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, result
    # No worker threads: one picture is small, and many processes draw side by side.
    _check(library.tvg_engine_init(0), "tvg_engine_init")
    return library


def _check(result: int, call: str) -> None:
    if result != 0:
        raise ToolchainError(f"ThorVG: {call} returned {result}, expected 0")


@functools.cache
def _commands(points: int, closed: bool) -> np.ndarray:
    commands = np.full(points + closed, _LINE_TO, dtype=np.uint8)
    commands[0] = _MOVE_TO
    if closed:
        commands[-1] = _CLOSE
    return commands


def _byte(value: float) -> int:
    return 0 if value <= 0 else 255 if value >= 1 else int(value * 255 + 0.5)


class Canvas:
    """A square canvas of `size` pixels. Paths are float arrays `[n,2]` in pixels; colours and alpha are 0..1."""

    def __init__(self, size: int):
        self._library = _library()
        self._pixels = np.zeros((size, size, 4), dtype=np.uint8)
        self._canvas = self._library.tvg_swcanvas_create(0)
        target = self._pixels.ctypes.data
        _check(self._library.tvg_swcanvas_set_target(self._canvas, target, size, size, size, _ABGR8888), "set_target")

    def _shape(self, points: np.ndarray, closed: bool) -> int:
        points = np.ascontiguousarray(points, dtype=np.float32)
        commands = _commands(len(points), closed)
        shape = self._library.tvg_shape_new()
        self._library.tvg_shape_append_path(shape, commands.ctypes.data, len(commands), points.ctypes.data, len(points))
        return shape

    def _add(self, shape: int, clip: np.ndarray | None) -> None:
        if clip is not None:
            _check(self._library.tvg_paint_set_clip(shape, self._shape(clip, True)), "set_clip")
        _check(self._library.tvg_canvas_add(self._canvas, shape), "canvas_add")

    def fill(self, points: np.ndarray, colour: Colour, alpha: float = 1.0, clip: np.ndarray | None = None) -> None:
        """Fill the closed path `points`, inside the closed path `clip` where one is given."""
        shape = self._shape(points, True)
        red, green, blue = colour
        self._library.tvg_shape_set_fill_color(shape, _byte(red), _byte(green), _byte(blue), _byte(alpha))
        self._add(shape, clip)

    def stroke(
        self,
        points: np.ndarray,
        colour: Colour,
        width: float,
        alpha: float = 1.0,
        closed: bool = False,
        clip: np.ndarray | None = None,
    ) -> None:
        """Stroke the path `points`, `width` pixels wide, with round joins and caps."""
        shape = self._shape(points, closed)
        red, green, blue = colour
        library = self._library
        library.tvg_shape_set_stroke_width(shape, width)
        library.tvg_shape_set_stroke_color(shape, _byte(red), _byte(green), _byte(blue), _byte(alpha))
        library.tvg_shape_set_stroke_join(shape, _ROUND)
        library.tvg_shape_set_stroke_cap(shape, _ROUND)
        self._add(shape, clip)

    def finish(self) -> np.ndarray:
        """Draw everything; returns uint8 `[size,size,4]`, RGB premultiplied by alpha. The canvas is spent."""
        _check(self._library.tvg_canvas_draw(self._canvas, True), "canvas_draw")
        _check(self._library.tvg_canvas_sync(self._canvas), "canvas_sync")
        _check(self._library.tvg_canvas_destroy(self._canvas), "canvas_destroy")
        return self._pixels
