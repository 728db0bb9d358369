"""What tiny pipelines share: a decoder, a text encoder with its tokenizer, a folder to be saved in."""

from __future__ import annotations

import json
import tempfile
from functools import lru_cache
from pathlib import Path

# Latents of 8 x 8 where nothing else is asked for, and a decoder that doubles them.
SIDE = 16
LETTERS = [chr(code) for code in range(33, 127)]
_TOKENS = 16


@lru_cache(maxsize=1)
def root() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="cat2dog-text2image-")


def decoder(**options):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIDE,
        **options,
    )


def clip(projection: int = 0):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokens = tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        max_position_embeddings=_TOKENS,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
        projection_dim=projection or 512,
    )
    return CLIPTextModelWithProjection(config) if projection else CLIPTextModel(config)


@lru_cache(maxsize=1)
def tokenizer():
    """CLIP's byte-pair tokenizer that knows letters, and one word."""
    from transformers import CLIPTokenizer

    folder = Path(root().name) / "tokenizer"
    folder.mkdir()
    tokens = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=_TOKENS)


def saved(pipeline, name: str) -> Path:
    folder = Path(root().name) / name
    pipeline.save_pretrained(folder)
    return folder
