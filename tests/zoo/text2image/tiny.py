"""Real pipelines and models with some hundred thousand random weights, made here: nothing is downloaded.

`python -m tests.zoo.text2image.tiny FOLDER` makes them in FOLDER, for whoever wants to try the commands without any.
"""

from __future__ import annotations

import shutil
import sys
from functools import lru_cache
from pathlib import Path

from tests.zoo.text2image.tiny_parts import LETTERS, clip, decoder, root, saved, tokenizer

_WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "cat", "dog", "on", "the", "mat")


@lru_cache(maxsize=1)
def stable_diffusion() -> Path:
    """Stable Diffusion's pipeline: CLIP, a UNet with two attention blocks, DDIM."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=2,
        norm_num_groups=8,
    )
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = StableDiffusionPipeline(
        decoder(), clip(), tokenizer(), unet, scheduler, None, None, requires_safety_checker=False
    )
    return saved(pipeline, "stable-diffusion")


@lru_cache(maxsize=1)
def stable_diffusion_3() -> Path:
    """Stable Diffusion 3's pipeline without its T5: two CLIPs, a transformer, flow matching."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=32,
    )
    pictures = decoder(shift_factor=0.06, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False)
    tokens = tokenizer()
    pipeline = StableDiffusion3Pipeline(
        transformer,
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        pictures,
        clip(projection=16),
        tokens,
        clip(projection=16),
        tokens,
        None,
        None,
    )
    return saved(pipeline, "stable-diffusion-3")


@lru_cache(maxsize=1)
def stable_diffusion_xl() -> Path:
    """SDXL's pipeline: two CLIPs, a UNet that is told sizes too, Euler."""
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=(2, 2),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8,
        transformer_layers_per_block=(1, 1),
        norm_num_groups=8,
    )
    tokens = tokenizer()
    scheduler = EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    pipeline = StableDiffusionXLPipeline(
        decoder(force_upcast=True), clip(), clip(projection=16), tokens, tokens, unet, scheduler
    )
    return saved(pipeline, "stable-diffusion-xl")


@lru_cache(maxsize=1)
def flux() -> Path:
    """Flux's pipeline: CLIP and T5, a transformer over packed patches of latents, guidance as an input."""
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    words = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("\u2581", -2.0),
        *((c, -3.0) for c in LETTERS if c.isalpha()),
    ]
    t5 = T5EncoderModel(T5Config(vocab_size=len(words) + 8, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4))
    pictures = decoder(shift_factor=0.06, scaling_factor=1.5, use_quant_conv=False, use_post_quant_conv=False)
    pipeline = FluxPipeline(
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        pictures,
        clip(),
        tokenizer(),
        t5,
        T5Tokenizer(vocab=words, extra_ids=8, model_max_length=32),
        transformer,
    )
    return saved(pipeline, "flux")


@lru_cache(maxsize=1)
def captioner() -> Path:
    """BLIP, which says something of these thirteen words."""
    import torch
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    torch.manual_seed(1)
    folder = Path(root().name) / "captioner"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(_WORDS))
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    tower = {"hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {"bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    config = BlipConfig(
        text_config={**tower, **special, "vocab_size": len(_WORDS), "encoder_hidden_size": 32, "projection_dim": 16},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    BlipForConditionalGeneration(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


@lru_cache(maxsize=1)
def upscaler() -> Path:
    """Swin2SR that doubles."""
    import torch
    from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution

    torch.manual_seed(2)
    folder = Path(root().name) / "upscaler"
    config = Swin2SRConfig(
        image_size=16,
        patch_size=1,
        embed_dim=16,
        depths=[2],
        num_heads=[2],
        window_size=8,
        upscale=2,
        upsampler="pixelshuffledirect",
    )
    Swin2SRForImageSuperResolution(config).save_pretrained(folder)
    return folder


def main(folder: Path) -> None:
    """All of them, side by side."""
    for make in (stable_diffusion, stable_diffusion_3, stable_diffusion_xl, flux, captioner, upscaler):
        made = make()
        shutil.copytree(made, folder / made.name)
        print(folder / made.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
