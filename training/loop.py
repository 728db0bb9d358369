"""The training loop itself; `training.train` is its command line."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cat2dog.checkpoint import save
from cat2dog.config import Config
from cat2dog.model import Cat2Dog
from cat2dog.pixels import denormalise, normalise
from runtime.errors import InputError, ToolchainError
from runtime.images import write_image
from training.augment import augment
from training.contact_sheet import grid
from training.draw import pair
from training.loss import picture_loss
from training.plot import loss_curve
from training.pool import Pool, Workers
from training.seeds import HELD_OUT
from training.shards import shard_paths
from training.state import Record, initial_weights, load_state, load_weights, save_state

STATE = "state.safetensors"
CHECKPOINT = "checkpoint"
_SAMPLES = 6
_SAVE_EVERY_S = 90.0
_SEEDS_PER_S = 20_000


@dataclass(frozen=True)
class Plan:
    """One run. It ends after `minutes`, or after `steps` in all if given; the schedule spans `total_minutes` (or
    `steps`) over all runs that resume one another."""

    out: Path
    batch: int
    rate: float
    minutes: float
    total_minutes: float
    steps: int | None
    shards: Path | None
    workers: int
    capacity: int
    first_batch: int
    seed: int
    device: str
    spent_minutes: float
    compiled: bool
    decay: float = 0.9995
    weight_decay: float = 0.05
    log_every: int = 20


def learning_rate(progress: float, peak: float, warmup: float = 0.02) -> float:
    """Linear warm-up over the first 2 % of the schedule, then half a cosine down to 1 % of `peak`."""
    progress = min(max(progress, 0.0), 1.0)
    if progress < warmup:
        return peak * max(progress / warmup, 0.01)
    turn = (progress - warmup) / (1 - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * turn)))


def optimiser_of(model: nn.Module, plan: Plan) -> torch.optim.AdamW:
    """AdamW that decays matrices only: norm gains, biases and position tables are left alone."""
    decayed = [w for name, w in model.named_parameters() if w.ndim == 2 and name != "position"]
    held = {id(w) for w in decayed}
    others = [w for w in model.parameters() if id(w) not in held]
    groups = [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98), fused=plan.device == "cuda")


def keep_stream_wide(model: Cat2Dog) -> None:
    """Keep the residual stream FP32 under autocast, which would round off small branches at every addition."""
    model.embed.register_forward_hook(lambda module, given, tokens: tokens.float())


def _update_average(average: dict[str, Tensor], model: nn.Module, step: int, decay: float) -> None:
    # A young average forgets faster, or it would hold on to the random start.
    part = 1 - min(decay, (1 + step) / (10 + step))
    weights = [weight.detach() for weight in model.parameters()]
    torch._foreach_lerp_(list(average.values()), weights, part)


@torch.no_grad()
def predict(model: nn.Module, weights: dict[str, Tensor] | None, cats: np.ndarray, device: str) -> np.ndarray:
    """Dogs uint8 `[b,r,r,3]` of `cats`, in FP32, with `weights` in place of the model's own if given."""
    images = normalise(torch.from_numpy(cats).to(device))
    dogs = model(images) if weights is None else torch.func.functional_call(model, weights, (images,))
    return denormalise(dogs).cpu().numpy()


def train(
    config: Config,
    plan: Plan,
    resume: Path | None,
    say: Callable[[Record, str], None],
) -> Record:
    """Train until the plan's end; returns the record. Ctrl-C saves the state and is raised again.

    Under `plan.out`: `state.safetensors` to resume from, `checkpoint/` (the averaged weights), `loss.png`,
    `samples.png` (held-out cats, what the network draws, what was wanted). `say` is told the record and a line.
    """
    device = torch.device(plan.device)
    model = Cat2Dog(config)
    initial_weights(model, plan.seed)
    keep_stream_wide(model)
    model.to(device)
    average = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    optimiser = optimiser_of(model, plan)
    record = Record(seed=plan.seed)
    if resume is not None and resume.is_dir():
        load_weights(resume, config, model, average)
        record.seconds = 60 * plan.spent_minutes
        record.next_seed = round(record.seconds) * _SEEDS_PER_S  # past those that the earlier runs can have drawn
    elif resume is not None:
        record = load_state(resume, config, model, average, optimiser)
    if config.resolution % 32 or config.resolution > 1024:
        raise InputError(f"resolution {config.resolution} cannot be trained: expected a multiple of 32 up to 1024")
    forward = torch.compile(model) if plan.compiled else model
    pool = Pool(plan.capacity, config.resolution, device)
    if plan.shards is not None:
        pool.add_shards(shard_paths(plan.shards))
    held_out = [pair(HELD_OUT + index, config.resolution) for index in range(_SAMPLES)]
    plan.out.mkdir(parents=True, exist_ok=True)

    def write_all() -> None:
        save_state(plan.out / STATE, config, record, model, average, optimiser)
        weights = ((name, weight.cpu()) for name, weight in average.items())
        save(plan.out / CHECKPOINT, config, weights, overwrite=True)
        write_image(plan.out / "loss.png", loss_curve(record.history))
        drawn = predict(model, average, np.stack([cat for cat, _ in held_out]), plan.device)
        rows = [[cat, dog, wanted] for (cat, wanted), dog in zip(held_out, drawn, strict=True)]
        write_image(plan.out / "samples.png", grid(rows))

    with contextlib.ExitStack() as stack:
        workers = None
        if plan.workers and not pool.is_full:
            workers = stack.enter_context(Workers(plan.workers, config.resolution, record.next_seed))
            while pool.count < min(plan.first_batch, plan.capacity):
                workers.collect(pool, wait=True)
        started, spent_before, saved = time.monotonic(), record.seconds, time.monotonic()
        running, running_count = torch.zeros((), device=device), 0
        try:
            while True:
                if plan.steps is not None:
                    progress, finished = record.step / plan.steps, record.step >= plan.steps
                else:
                    progress = record.seconds / (60 * plan.total_minutes)
                    finished = time.monotonic() - started >= 60 * plan.minutes
                if finished:
                    break
                if workers is not None:
                    workers.collect(pool)
                    record.next_seed = workers.next_seed
                rate = learning_rate(progress, plan.rate)
                for group in optimiser.param_groups:
                    group["lr"] = rate
                # Each step has its own generator, so a resumed run makes the choices that an unbroken one would.
                generator = torch.Generator().manual_seed((record.seed << 40) + record.step)
                cats, dogs = pool.draw(plan.batch, generator)
                cats, dogs = augment(normalise(cats), normalise(dogs), generator)
                with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                    loss = picture_loss(forward(cats), dogs)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                record.step += 1
                record.pictures += plan.batch
                _update_average(average, model, record.step, plan.decay)
                running, running_count = running + loss.detach(), running_count + 1
                record.seconds = spent_before + time.monotonic() - started
                if record.step % plan.log_every == 0:
                    value = float(running) / running_count
                    if not math.isfinite(value):
                        raise ToolchainError(
                            f"the loss is {value} at step {record.step}, expected a finite number: "
                            f"resume from {plan.out / STATE} with a lower --rate"
                        )
                    record.history.append((record.step, value, rate))
                    running, running_count = torch.zeros((), device=device), 0
                    say(record, f"step {record.step}  loss {value:.4f}  rate {rate:.2e}  pool {pool.count}")
                    if time.monotonic() - saved > _SAVE_EVERY_S:
                        write_all()
                        saved = time.monotonic()
        except KeyboardInterrupt:
            save_state(plan.out / STATE, config, record, model, average, optimiser)
            raise
        record.seconds = spent_before + time.monotonic() - started
    write_all()
    return record
