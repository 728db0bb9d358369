"""One row of training: the same network, pictures and order in each; what differs is how it is run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from runtime.errors import ToolchainError
from zoo.convnext.config import Config
from zoo.convnext.data import Data, Pictures
from zoo.convnext.model import ConvNeXt, seeded
from zoo.convnext.recipe import MEAN, STD
from zoo.convnext.state import Record, load_state, save_state

RATE, WEIGHT_DECAY = 3e-4, 0.01
Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """torch.compile or not, FP16 autocast with a gradient scaler or not."""

    compiled: bool
    amp: bool


ROWS = {"vanilla": Row(False, False), "compile": Row(True, False), "amp": Row(False, True), "both": Row(True, True)}


@dataclass(frozen=True)
class Plan:
    """How long, on what. `seconds` ends a row early, after the epoch that it ends in, and before none has been done."""

    epochs: int
    batch: int
    device: str
    seed: int = 0
    seconds: float = math.inf


def train_row(name: str, config: Config, data: Data, plan: Plan, state: Path, say: Say) -> tuple[ConvNeXt, Record]:
    """Train row `name` of ROWS until the plan's end, going on from `state` where that is there; saved each epoch.

    Raises InputError where `state` is of another run, ToolchainError where the loss is no number any more.
    """
    row, device = ROWS[name], torch.device(plan.device)
    model = seeded(config, plan.seed).to(device)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=RATE, weight_decay=WEIGHT_DECAY, fused=True if device.type == "cuda" else None
    )
    scaler = torch.amp.GradScaler(device.type, enabled=row.amp)
    about = {**_plain(asdict(config)), "batch": plan.batch, "seed": plan.seed, "row": name, "data": data.digest()}
    record = load_state(state, about, model, optimiser, scaler) if state.exists() else Record()
    forward: Callable[[Tensor], Tensor] = torch.compile(model, dynamic=False) if row.compiled else model
    train, val = (_on(device, part) for part in (data.train, data.val))
    began = time.monotonic()
    while len(record.epochs) < plan.epochs and time.monotonic() - began < plan.seconds:
        number = len(record.epochs)
        if row.compiled and record.compile_seconds is None:
            record.compile_seconds = _warm_up(forward, model, scaler, train, plan, row)
        # Each epoch has its own order, so that a row that goes on takes the one that an unbroken one would.
        order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed((plan.seed << 20) + number))
        loss, seconds = _epoch(forward, optimiser, scaler, train, order, plan, row, config.resolution)
        if not math.isfinite(loss):
            raise ToolchainError(f"the loss of {name} is {loss} in epoch {number + 1}; its state was not kept")
        share = accuracy(model, *val, plan.batch, row.amp)
        record.epochs.append({"seconds": round(seconds, 4), "loss": round(loss, 5), "accuracy": round(share, 5)})
        save_state(state, about, record, model, optimiser, scaler)
        say(f"{name}, epoch {number + 1}: {seconds:.2f} s, loss {loss:.4f}, {100 * share:.2f} % right")
    return model, record


def prepared(images: Tensor, resolution: int) -> Tensor:
    """uint8 `[B,S,S,3]` to normalised floats `[B,3,R,R]`, enlarged bilinearly on the device they are on."""
    mean, std = (torch.tensor(each, device=images.device) for each in (MEAN, STD))
    floats = ((images.float() - mean) / std).permute(0, 3, 1, 2)
    if floats.shape[-1] == resolution:
        return floats.contiguous()
    return functional.interpolate(floats, (resolution, resolution), mode="bilinear", align_corners=False)


@torch.no_grad()
def accuracy(model: ConvNeXt, images: Tensor, labels: Tensor, batch: int, amp: bool = False) -> float:
    """The share of pictures of which the likeliest class is the right one."""
    right = torch.zeros((), dtype=torch.int64, device=labels.device)
    for start in range(0, len(labels), batch):
        with torch.autocast(images.device.type, torch.float16, enabled=amp):
            logits = model(prepared(images[start : start + batch], model.config.resolution))
        right += (logits.argmax(1) == labels[start : start + batch]).sum()
    return float(right) / len(labels)


def _epoch(
    forward: Callable[[Tensor], Tensor],
    optimiser: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    train: tuple[Tensor, Tensor],
    order: Tensor,
    plan: Plan,
    row: Row,
    side: int,
) -> tuple[float, float]:
    """Mean loss and seconds. The last, smaller batch is left out: what is compiled is compiled for one size."""
    images, labels = train
    order = order.to(images.device)
    total, count = torch.zeros((), device=images.device), max(len(labels) // plan.batch, 1)
    _wait(images.device)
    began = time.perf_counter()
    for step in range(count):
        chosen = order[step * plan.batch : (step + 1) * plan.batch]
        loss = _loss(forward, images[chosen], labels[chosen], row, side)
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        total += loss.detach()
    _wait(images.device)
    return float(total) / count, time.perf_counter() - began


def _loss(forward: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, row: Row, side: int) -> Tensor:
    with torch.autocast(images.device.type, torch.float16, enabled=row.amp):
        return functional.cross_entropy(forward(prepared(images, side)), labels)


def _warm_up(
    forward: Callable[[Tensor], Tensor],
    model: ConvNeXt,
    scaler: torch.amp.GradScaler,
    train: tuple[Tensor, Tensor],
    plan: Plan,
    row: Row,
) -> float:
    """Compile forward and backward; the weights are as before. Returns the seconds, which are of no epoch."""
    images, labels = train
    began = time.perf_counter()
    scaler.scale(_loss(forward, images[: plan.batch], labels[: plan.batch], row, model.config.resolution)).backward()
    model.zero_grad(set_to_none=True)
    _wait(images.device)
    return round(time.perf_counter() - began, 2)


def _on(device: torch.device, part: Pictures) -> tuple[Tensor, Tensor]:
    """Pictures as bytes on the device: Tiny-ImageNet's are 1.4 GB."""
    return torch.from_numpy(part.images).to(device), torch.from_numpy(part.labels).to(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives it back."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}
