"""Attention as models write it, with what should be folded into a fused kernel and what must not be, in one module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from export.recipe import ModuleRecipe
from runtime.runner import TensorSpec

N, S, H, D, W = 6, 9, 2, 32, 64
_ANGLES = torch.outer(torch.arange(1.0, N + 1), 2.0 ** -torch.arange(D // 2))
COS, SIN = (torch.cat([table, table], 1) for table in (_ANGLES.cos(), _ANGLES.sin()))


class HeadNorm(nn.Module):
    """RMSNorm over a head, with gains that tell queries from keys."""

    def __init__(self, seed: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.rand(D, generator=torch.Generator().manual_seed(seed)) + 0.5)

    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.weight


class Quotient(HeadNorm):
    def forward(self, x):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.weight


def rope(x: Tensor, cos: Tensor = COS, sin: Tensor = SIN) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def sliced_rope(x: Tensor) -> Tensor:
    return sin_first(x, torch.cat((-x[..., D // 2 :], x[..., : D // 2]), -1))


def sin_first(x: Tensor, turned: Tensor) -> Tensor:
    return SIN * turned + COS * x


def thirds(qkv: Tensor) -> list[Tensor]:
    return [part.reshape(-1, N, H, D).transpose(1, 2) for part in qkv.split(W, -1)]


def unbound(qkv: Tensor) -> tuple[Tensor, ...]:
    return qkv.reshape(-1, N, 3, H, D).permute(2, 0, 3, 1, 4).unbind(0)


def heads(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[1], H, D).transpose(1, 2)


def tokens(y: Tensor) -> Tensor:
    return y.transpose(1, 2).reshape(-1, y.shape[2], H * y.shape[3])


sdpa = F.scaled_dot_product_attention


@dataclass(frozen=True)
class Case:
    """`run(module, qkv, q, kv)` gives the output; the rest is what the lowering should make of it."""

    run: Callable
    layout: str = "packed"
    output: str = "tokens"
    norm: bool = False
    rope: bool = False
    missed: str = ""
    refused: str = ""
    keys: int = N
    scale: float = D**-0.5
    batch: int = 1
    shape: tuple[int, ...] = (N, W)


def _plain(m, qkv, q, kv):
    return tokens(sdpa(*thirds(qkv)))


def _norm_and_rope(m, qkv, q, kv):
    query, key, value = thirds(qkv)
    return tokens(sdpa(rope(m.q_norm(query)), rope(m.k_norm(key)), value))


def _norm(m, qkv, q, kv):
    query, key, value = unbound(qkv)
    return tokens(sdpa(m.q_norm(query), m.k_norm(key), value, scale=0.3))


def _torch_norm(m, qkv, q, kv):
    query, key, value = thirds(qkv)
    return tokens(sdpa(m.torch_norm(query), m.torch_norm(key), value))


def _quotient_norm(m, qkv, q, kv):
    query, key, value = thirds(qkv)
    return tokens(sdpa(m.quotient(query), m.quotient(key), value))


def _rope(m, qkv, q, kv):
    query, key, value = unbound(qkv)
    return tokens(sdpa(sliced_rope(query), sliced_rope(key), value))


def _before_the_transpose(m, qkv, q, kv):
    query, key, value = (part.reshape(-1, N, H, D) for part in qkv.split(W, -1))
    query, key = (rope(m.q_norm(query), COS[:, None], SIN[:, None]), rope(m.k_norm(key), COS[:, None], SIN[:, None]))
    return tokens(sdpa(*(x.transpose(1, 2) for x in (query, key, value))))


def _transpose_in_between(m, qkv, q, kv):
    query, key, value = (part.reshape(-1, N, H, D) for part in qkv.split(W, -1))
    query, key = (rope(norm.transpose(1, 2)) for norm in (m.q_norm(query), m.k_norm(key)))
    return tokens(sdpa(query, key, value.transpose(1, 2)))


def _other_order(m, qkv, q, kv):
    key, query, value = thirds(qkv)
    return tokens(sdpa(query, key, value))


def _cross(m, qkv, q, kv):
    key, value = (heads(part) for part in kv.split(W, -1))
    return tokens(sdpa(heads(q), key, value))


def _cross_norm(m, qkv, q, kv):
    key, value = (heads(part) for part in kv.split(W, -1))
    return tokens(sdpa(m.q_norm(heads(q)), m.k_norm(key), value))


def _wide_norm(m, qkv, q, kv):
    query, key, value = qkv.split(W, -1)
    return tokens(sdpa(heads(m.wide_norm(query)), heads(m.wide_norm(key)), heads(value)))


def _one_for_all(m, qkv, q, kv):
    x = heads(q)
    return tokens(sdpa(x, x, x))


def _split_of_four(m, qkv, q, kv):
    parts = qkv.reshape(-1, N, H, 3, D).permute(3, 0, 2, 1, 4)
    return sdpa(parts[0], parts[1], parts[2])


def _norm_of_queries(m, qkv, q, kv):
    query, key, value = thirds(qkv)
    return tokens(sdpa(rope(m.q_norm(query)), rope(key), value))


def _rope_of_keys(m, qkv, q, kv):
    query, key, value = thirds(qkv)
    return tokens(sdpa(m.q_norm(query), rope(key), value))


def _other_tables(m, qkv, q, kv):
    query, key, value = thirds(qkv)
    return tokens(sdpa(rope(query), rope(key, COS.flip(0), SIN.flip(0)), value))


def _other_epsilon(m, qkv, q, kv):
    query, key, value = thirds(qkv)
    return tokens(sdpa(m.q_norm(query), m.other_epsilon(key), value))


def _uneven_halves(m, qkv, q, kv):
    query, key, value = thirds(qkv)
    cos = torch.cat([COS[:, : D // 2], SIN[:, : D // 2]], 1)
    return tokens(sdpa(rope(query, cos), rope(key, cos), value))


def _turned_the_other_way(m, qkv, q, kv):
    def other(x):
        first, second = x.chunk(2, -1)
        return x * COS + torch.cat([second, -first], -1) * SIN

    query, key, value = thirds(qkv)
    return tokens(sdpa(other(query), other(key), value))


def _layer_norm(m, qkv, q, kv):
    query, key, value = thirds(qkv)
    return tokens(sdpa(m.layer_norm(query), m.layer_norm(key), value))


def _read_twice(m, qkv, q, kv):
    query, key, value = thirds(qkv)
    turned = rope(query)
    y = sdpa(turned, rope(key), value)
    return tokens(y) + y.sum(1).repeat(1, 1, H) + tokens(turned)


def _transposed_only(m, qkv, q, kv):
    return sdpa(*thirds(qkv)).transpose(1, 2)


def _windows(m, qkv, q, kv):
    windows = qkv.reshape(-1, 2, N // 2, 3 * W).reshape(-1, N // 2, 3 * W)
    query, key, value = (part.reshape(-1, N // 2, H, D).transpose(1, 2) for part in windows.split(W, -1))
    return sdpa(query, key, value).transpose(1, 2).reshape(-1, N, W)


def _small_heads(m, qkv, q, kv):
    query, key, value = (x[..., :24] for x in thirds(qkv))
    return tokens(sdpa(query, key, value))


def _wide_values(m, qkv, q, kv):
    query, key, value = thirds(qkv)
    return tokens(sdpa(query, key, torch.cat([value, value], -1)))


def _masked(m, qkv, q, kv):
    return tokens(sdpa(*thirds(qkv), attn_mask=torch.ones(N, N).tril() * 3))


def _causal(m, qkv, q, kv):
    return tokens(sdpa(*thirds(qkv), is_causal=True))


CASES = {
    "plain": Case(_plain),
    "norm_and_rope": Case(_norm_and_rope, norm=True, rope=True),
    "norm": Case(_norm, norm=True, scale=0.3),
    "torch_norm": Case(_torch_norm, norm=True),
    "quotient_norm": Case(_quotient_norm, norm=True),
    "rope": Case(_rope, rope=True),
    "before_the_transpose": Case(_before_the_transpose, norm=True, rope=True),
    "transpose_in_between": Case(_transpose_in_between, norm=True, rope=True),
    "other_order": Case(_other_order, "tokens"),
    "cross": Case(_cross, "tokens", keys=S),
    "cross_norm": Case(_cross_norm, "tokens", norm=True, keys=S),
    "wide_norm": Case(_wide_norm, "tokens"),
    "one_for_all": Case(_one_for_all, "tokens"),
    "split_of_four": Case(_split_of_four, "heads", "heads", shape=(H, N, D)),
    "norm_of_queries": Case(_norm_of_queries, "heads", rope=True, missed="RMSNorm (of queries only)"),
    "rope_of_keys": Case(_rope_of_keys, "heads", missed="RoPE (of keys only), RMSNorm (of queries only)"),
    "other_tables": Case(_other_tables, "heads", missed="RoPE (queries and keys differ in its tables)"),
    "other_epsilon": Case(_other_epsilon, "heads", missed="RMSNorm (queries and keys differ in its epsilon)"),
    "uneven_halves": Case(_uneven_halves, "heads"),
    "turned_the_other_way": Case(_turned_the_other_way, "heads"),
    "layer_norm": Case(_layer_norm, "heads"),
    "read_twice": Case(_read_twice, "packed", "heads", rope=True),
    "transposed_only": Case(_transposed_only, shape=(N, H, D)),
    "windows": Case(_windows, keys=N // 2, batch=2),
    "small_heads": Case(_small_heads, refused="head size 24 is not a multiple of 8 from 32 to 128", shape=(N, 48)),
    "wide_values": Case(_wide_values, refused="head sizes of queries and values differ (32 and 64)", shape=(N, 128)),
    "masked": Case(_masked, refused="MaskedAttention has no fused kernel"),
    "causal": Case(_causal, refused="CausalAttention has no fused kernel"),
}


class Patterns(nn.Module):
    """Every case, each with a packed projection of its own, since tracing costs a second however little there is."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.qkv = nn.ModuleDict({name: nn.Linear(W, 3 * W) for name in CASES})
        self.q, self.kv = nn.Linear(W, W), nn.Linear(W, 2 * W)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.2, generator=generator)
        self.q_norm, self.k_norm, self.other_epsilon = HeadNorm(1), HeadNorm(2), HeadNorm(2, 0.01)
        self.quotient, self.torch_norm = Quotient(3), nn.RMSNorm(D, eps=1e-6)
        self.wide_norm, self.layer_norm = nn.RMSNorm(W, eps=1e-6), nn.LayerNorm(D)

    def forward(self, x, context):
        q, kv = self.q(x), self.kv(context)
        return tuple(case.run(self, self.qkv[name](x), q, kv) for name, case in CASES.items())


def patterns_recipe() -> ModuleRecipe:
    inputs = [TensorSpec("x", "float32", (-1, N, W)), TensorSpec("context", "float32", (-1, S, W))]
    outputs = [TensorSpec(name, "float32", (-1, *case.shape)) for name, case in CASES.items()]
    return ModuleRecipe("patterns", Patterns, inputs, outputs, samples=3)
