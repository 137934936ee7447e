"""The layouts of published adapters and parts: all but the weight adapters, which are in `headers.lora`.

Names and shapes are written after the repositories that publish such files, counting blocks as those do. A network is
shortened where many more of the same follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from headers import lora, stable_diffusion
from headers.layout import Layout
from headers.stable_diffusion import Shapes, under

Shape = tuple[int, ...]


def _both(name: str, *shape: int) -> Shapes:
    """A weight and its bias."""
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


# --- embeddings and hypernetworks ------------------------------------------------------------------------------------


def _embeddings() -> Iterator[tuple[str, Layout]]:
    def row(family: str, shapes: Shapes, layout: str, **more: object) -> Layout:
        return Layout(shapes, "embedding", family, layout, **more)  # type: ignore[arg-type]

    told = {"name": "badhand", "step": "1500", "sd_checkpoint_name": "v1-5-pruned"}
    for family, width in (("sd1", 768), ("sd2", 1024)):
        yield f"a1111-{family}", row(family, {"string_to_param.*": (8, width)}, "a1111", metadata=told, format="pickle")
        yield f"emb-params-{family}", row(family, {"emb_params": (75, width)}, "emb_params")
        yield f"sd-concepts-{family}", row(family, {"<cat-toy>": (width,)}, "sd-concepts", format="pickle")
        yield f"bare-{family}", row(family, {"my_style": (3, width)}, "bare", guess=True)
        yield f"bare-vector-{family}", row(family, {"learned": (width,)}, "bare", guess=True)
    numbered: Shapes = {"string_to_param.*": (1, 768), "string_to_token.*": ()}
    yield "original", row("sd1", numbered, "a1111", format="pickle")
    yield "sd-concepts-many", row("sd1", {f"<cat_{index}>": (768,) for index in range(4)}, "sd-concepts")
    yield "sdxl", row("sdxl", {"clip_l": (8, 768), "clip_g": (8, 1280)}, "multi-encoder")
    yield "sdxl-pivotal", row("sdxl", {"text_encoders_0": (2, 768), "text_encoders_1": (2, 1280)}, "multi-encoder")
    yield "sdxl-clip-g", row("sdxl", {"clip_g": (8, 1280)}, "multi-encoder")
    yield "clip-l", row("sd1", {"clip_l": (8, 768)}, "multi-encoder", guess=True)
    sdxl = {"modelspec.architecture": "stable-diffusion-xl-v1-base/textual-inversion"}
    yield "clip-l-told", row("sdxl", {"clip_l": (8, 768)}, "multi-encoder", metadata=sdxl)
    three = {"clip_l": (4, 768), "clip_g": (4, 1280), "t5xxl": (4, 4096)}
    yield "sd3", row("sd3", three, "multi-encoder")
    yield "flux", row("flux", {"clip_l": (4, 768), "t5xxl": (4, 4096)}, "multi-encoder")
    onetrainer = {"clip_l": (4, 768), "clip_l_out": (4, 768), "t5": (4, 4096), "t5_out": (4, 4096)}
    yield "flux-onetrainer", row("flux", onetrainer, "multi-encoder")


def _hypernetwork(sizes: tuple[int, ...], structure: tuple[float, ...], norms: bool = False) -> Shapes:
    """A1111's: linear layers under `linear`, numbered with what stands between them (activations, norms, dropout)."""
    shapes: Shapes = {}
    for size in sizes:
        for half in (0, 1):
            index = 0
            for into, out in pairwise(structure):
                name = f"{size}.{half}.linear.{index}"
                shapes |= _both(name, int(size * out), int(size * into))
                if norms:
                    index += 1
                    shapes |= _both(f"{size}.{half}.linear.{index}", int(size * out))
                index += 2
    return shapes


def _hypernetworks() -> Iterator[tuple[str, Layout]]:
    told = {
        "step": "20000", "name": "style", "layer_structure": "[1, 2, 1]", "activation_func": "relu",
        "is_layer_norm": "false", "sd_checkpoint_name": "v1-5-pruned", "activate_output": "true",
    }  # fmt: skip
    first, second = (320, 640, 768, 1280), (320, 640, 1024, 1280)

    def row(family: str, shapes: Shapes, **more: object) -> Layout:
        return Layout(shapes, "hypernetwork", family, format="pickle", **more)  # type: ignore[arg-type]

    yield "hypernetwork-sd1", row("sd1", _hypernetwork(first, (1, 2, 1)), metadata=told)
    yield "hypernetwork-sd1-two-sizes", row("sd1", _hypernetwork((320, 768), (1, 2, 1)))
    yield "hypernetwork-sd2", row("sd2", _hypernetwork(second, (1, 2, 1)), metadata=told)
    yield "hypernetwork-sdxl", row("sdxl", _hypernetwork((640, 1280, 2048), (1, 1.5, 1.5, 1)))
    yield "hypernetwork-norms", row("sd1", _hypernetwork(first, (1, 2, 2, 1), norms=True))
    yield "hypernetwork-self-attention", row("sd1", _hypernetwork((320, 640), (1, 2, 1)), guess=True)
    old: Shapes = {}
    for size in first:
        for half in (0, 1):
            old |= _both(f"{size}.{half}.linear1", 2 * size, size) | _both(f"{size}.{half}.linear2", size, 2 * size)
    yield "hypernetwork-old", row("sd1", old)


# --- autoencoders ----------------------------------------------------------------------------------------------------


def _diffusers_vae(latent: int = 4, old: bool = False, dims: int = 2) -> Shapes:
    """AutoencoderKL in diffusers' names; before 0.15 they called the attention's layers otherwise."""
    kernel, shapes = (3,) * dims, {}
    channels = (128, 256, 512, 512)

    def resnet(name: str, into: int, out: int) -> None:
        shapes.update(_both(f"{name}.norm1", into) | _both(f"{name}.conv1", out, into, *kernel))
        shapes.update(_both(f"{name}.norm2", out) | _both(f"{name}.conv2", out, out, *kernel))
        if into != out:
            shapes.update(_both(f"{name}.conv_shortcut", out, into, *(1,) * dims))

    def middle(side: str) -> None:
        resnet(f"{side}.mid_block.resnets.0", 512, 512)
        names = ("query", "key", "value", "proj_attn") if old else ("to_q", "to_k", "to_v", "to_out.0")
        shapes.update(_both(f"{side}.mid_block.attentions.0.group_norm", 512))
        for name in names:
            shapes.update(_both(f"{side}.mid_block.attentions.0.{name}", 512, 512))
        resnet(f"{side}.mid_block.resnets.1", 512, 512)

    shapes.update(_both("encoder.conv_in", channels[0], 3, *kernel))
    width = channels[0]
    for level, out in enumerate(channels):
        for layer in range(2):
            resnet(f"encoder.down_blocks.{level}.resnets.{layer}", width, out)
            width = out
        if level != 3:
            shapes.update(_both(f"encoder.down_blocks.{level}.downsamplers.0.conv", out, out, *kernel))
    middle("encoder")
    shapes.update(_both("encoder.conv_norm_out", 512) | _both("encoder.conv_out", 2 * latent, 512, *kernel))
    shapes.update(_both("decoder.conv_in", 512, latent, *kernel))
    middle("decoder")
    width = 512
    for level, out in enumerate(reversed(channels)):
        for layer in range(3):
            resnet(f"decoder.up_blocks.{level}.resnets.{layer}", width, out)
            width = out
        if level != 3:
            shapes.update(_both(f"decoder.up_blocks.{level}.upsamplers.0.conv", out, out, *kernel))
    shapes.update(_both("decoder.conv_norm_out", 128) | _both("decoder.conv_out", 3, 128, *kernel))
    one = (1,) * dims
    shapes.update(_both("quant_conv", 2 * latent, 2 * latent, *one) | _both("post_quant_conv", latent, latent, *one))
    return shapes


def _hunyuan_image_vae() -> Shapes:
    """Its decoder in diffusers' names: three blocks at each of six sizes, and a convolution between two of them."""
    shapes = _both("decoder.conv_in", 1024, 64, 3, 3) | _both("decoder.mid_block.resnets.0.conv1", 1024, 1024, 3, 3)
    for level in range(6):
        for block in range(4 * level, 4 * level + 3):
            shapes |= _both(f"decoder.up_blocks.{block}.conv1", 128, 128, 3, 3)
        if level < 5:
            shapes |= _both(f"decoder.up_blocks.{4 * level + 3}.conv", 128, 128, 3, 3)
    return shapes | _both("encoder.conv_in", 128, 3, 3, 3)


def _causal(shapes: Shapes) -> Shapes:
    """The same with causal convolutions, which hold their weights one name deeper."""
    words = ("conv_in", "conv1", "conv2", "conv_out")
    deeper = {}
    for name, shape in shapes.items():
        module, _, leaf = name.rpartition(".")
        deeper[f"{module}.conv.{leaf}" if module.endswith(words) else name] = shape
    return deeper


def _without_quant(shapes: Shapes) -> Shapes:
    return {name: shape for name, shape in shapes.items() if "quant_conv" not in name}


def _tiny(latent: int, naming: str) -> Shapes:
    """TAESD: blocks of three convolutions; diffusers leaves out the decoder's first layer, which has no weights."""
    encoder: Shapes = _both("0", 64, 3, 3, 3)
    decoder: Shapes = _both("1", 64, latent, 3, 3)
    for block in (1, 3, 4, 5, 7, 8, 9, 11, 12, 13):
        for layer in (0, 2, 4):
            encoder |= _both(f"{block}.conv.{layer}", 64, 64, 3, 3)
    for block in (3, 4, 5, 8, 9, 10, 13, 14, 15, 18):
        for layer in (0, 2, 4):
            decoder |= _both(f"{block}.conv.{layer}", 64, 64, 3, 3)
    encoder |= _both("14", latent, 64, 3, 3)
    decoder |= _both("19", 3, 64, 3, 3)
    match naming:
        case "encoder":
            return encoder
        case "decoder":
            return decoder
        case "comfyui":
            return under("taesd_encoder.", encoder) | under("taesd_decoder.", decoder)
    moved = {f"{int(name.partition('.')[0]) - 1}.{name.partition('.')[2]}": shape for name, shape in decoder.items()}
    return under("encoder.layers.", encoder) | under("decoder.layers.", moved)


def _wan_vae(latent: int, first: int = 384) -> Shapes:
    shapes: Shapes = {"decoder.middle.0.residual.0.gamma": (first, 1, 1, 1)}
    for side in ("encoder", "decoder"):
        shapes |= _both(f"{side}.middle.0.residual.2", first, first, 3, 3, 3)
        shapes |= _both(f"{side}.middle.1.to_qkv", 3 * first, first, 1, 1)
    shapes |= _both("encoder.conv1", 96, 3, 3, 3, 3) | _both("decoder.conv1", first, latent, 3, 3, 3)
    return shapes | _both("conv1", 2 * latent, 2 * latent, 1, 1, 1) | _both("conv2", latent, latent, 1, 1, 1)


def _vaes() -> Iterator[tuple[str, Layout]]:
    def row(family: str, shapes: Shapes, variant: str = "kl", **more: object) -> Layout:
        return Layout(shapes, "vae", family, variant, **more)  # type: ignore[arg-type]

    ldm = stable_diffusion.vae()
    yield "vae-ldm", row("sd1", ldm, guess=True)
    yield "vae-first-stage", row("sd1", under("first_stage_model.", ldm), guess=True)
    xl = {"modelspec.architecture": "stable-diffusion-xl-v1-base/vae"}
    yield "vae-ldm-told", row("sdxl", ldm, metadata=xl)
    left = ldm | {"loss.logvar": (), "model_ema.decay": (), "loss.discriminator.main.0.weight": (64, 3, 4, 4)}
    yield "vae-with-loss", row("sd1", left, guess=True, format="pickle")
    yield "vae-diffusers", row("sd1", _diffusers_vae(), guess=True)
    yield "vae-diffusers-old", row("sd1", _diffusers_vae(old=True), guess=True)
    for family, scale in (("sd1", 0.18215), ("sdxl", 0.13025)):
        config = {"vae": {"_class_name": "AutoencoderKL", "scaling_factor": scale}}
        folder = under("vae/", _diffusers_vae())
        yield f"vae-folder-{family}", row(family, folder, configs=config, format="diffusers")
    decoder = {name: shape for name, shape in ldm.items() if name.startswith(("decoder", "post"))}
    yield "vae-decoder-only", row("sd1", decoder, guess=True)
    sixteen = _without_quant(stable_diffusion.vae(latent=16))
    yield "vae-16", row("flux", sixteen, guess=True)
    yield "vae-16-told", row("sd3", sixteen, metadata={"modelspec.architecture": "stable-diffusion-3-medium/vae"})
    config = {"vae": {"_class_name": "AutoencoderKL", "scaling_factor": 1.5305, "shift_factor": 0.0609}}
    folder = under("vae/", _without_quant(_diffusers_vae(16)))
    yield "vae-16-folder", row("sd3", folder, configs=config, format="diffusers")
    yield "vae-hunyuan-image", row("hunyuan-image", _without_quant(_diffusers_vae(64)))
    yield "vae-hunyuan-image-diffusers", row("hunyuan-image", _hunyuan_image_vae())
    norm = {"bn.running_mean": (128,), "bn.running_var": (128,), "bn.num_batches_tracked": ()}
    yield "vae-flux2", row("flux2", stable_diffusion.vae(latent=32) | norm)
    yield "vae-flux2-diffusers", row("flux2", _diffusers_vae(32) | norm)
    condition = {f"decoder.condition_encoder.layers.{layer}.weight": (64, 3, 3, 3) for layer in range(5)}
    yield "vae-asymmetric", row("sd1", _diffusers_vae() | condition, "asymmetric")
    yield "vae-upscaler", row("sd-x4-upscaler", stable_diffusion.vae((128, 256, 512)), "kl-f4")
    vq = stable_diffusion.vae((128, 256, 512), latent=3) | {"quantize.embedding.weight": (8192, 3)}
    yield "vae-vq", row("", vq, "vq")
    movq = _diffusers_vae() | {"quantize.embedding.weight": (16384, 4)}
    movq |= {"decoder.mid_block.resnets.0.norm1.conv_y.weight": (512, 4, 1, 1)}
    yield "vae-movq", row("kandinsky2", movq, "movq")
    svd = ldm | {"decoder.mid.block_1.mix_factor": (1,), "decoder.mid.block_1.time_stack.in_layers.0.weight": (512,)}
    yield "vae-svd", row("svd", svd, "temporal")
    time = {"decoder.time_conv_out.weight": (3, 3, 3, 1, 1)}
    yield "vae-svd-diffusers", row("svd", _diffusers_vae() | time, "temporal")
    consistency = {name: shape for name, shape in _diffusers_vae().items() if name.startswith(("encoder", "quant"))}
    consistency |= _both("decoder_unet.conv_in", 320, 7, 3, 3) | _both("decoder_unet.conv_out", 6, 320, 3, 3)
    yield "vae-consistency", row("sd1", consistency, "consistency", guess=True)

    # tiny ones
    for naming in ("diffusers", "comfyui", "encoder", "decoder"):
        yield f"taesd-{naming}", row("sd1", _tiny(4, naming), "taesd", guess=True)
        yield f"taesdxl-{naming}-told", row("sdxl", _tiny(4, naming), "taesdxl", metadata=xl)
        yield f"taef1-{naming}", row("flux", _tiny(16, naming), "taef1", guess=True)
    sd3 = {"modelspec.architecture": "stable-diffusion-3-medium/vae"}
    yield "taesd3-told", row("sd3", _tiny(16, "diffusers"), "taesd3", metadata=sd3)
    yield "taef2", row("flux2", _tiny(32, "comfyui"), "taef2")
    rough: Shapes = {}
    sizes = ((8, 4, 7), (16, 8, 5), (32, 16, 3), (64, 32, 3), (32, 64, 3), (16, 32, 3), (8, 16, 3), (3, 8, 3))
    for layer, (out, into, kernel) in enumerate(sizes, 1):
        rough |= _both(f"conv{layer}", out, into, kernel, kernel)
    yield "approximation", row("sd1", rough, "approximation", guess=True)
    film = _both("encoder.0", 64, 3, 3, 3) | _both("decoder.1", 256, 16, 3, 3)
    film |= {"decoder.3.conv.0.weight": (256, 512, 3, 3), "encoder.2.conv.weight": (64, 64, 1, 1)}
    yield "taehv", row("wan", film, "taehv", guess=True)

    # films
    yield "vae-wan", row("wan", _wan_vae(16), "film", guess=True)
    yield (
        "vae-qwen-told",
        row("qwen-image", _wan_vae(16), "film", metadata={"modelspec.architecture": "qwen-image/vae"}),
    )
    yield "vae-wan22", row("wan", _wan_vae(48, 1024), "film")
    wan = {"decoder.norm_out.gamma": (96, 1, 1, 1)} | _both("encoder.conv_in", 96, 3, 3, 3, 3)
    wan |= _both("decoder.conv_in", 384, 16, 3, 3, 3) | _both("quant_conv", 32, 32, 1, 1, 1)
    yield "vae-wan-diffusers", row("wan", wan, "film", guess=True)
    for name, family in (("AutoencoderKLQwenImage", "qwen-image"), ("AutoencoderKLWan", "wan")):
        told = {"vae": {"_class_name": name}}
        yield f"vae-{family}-folder", row(family, under("vae/", wan), "film", configs=told, format="diffusers")
    ltx = {"decoder.up_blocks.0.res_blocks.0.conv1.conv.weight": (512, 512, 3, 3, 3)}
    ltx |= _both("decoder.conv_in.conv", 512, 128, 3, 3, 3) | _both("encoder.conv_in.conv", 128, 48, 3, 3, 3)
    yield "vae-ltx", row("ltx", ltx, "film")
    yield "vae-ltx-prefixed", row("ltx", under("vae.", ltx), "film")
    resnet = {"decoder.up_blocks.0.resnets.0.conv1.conv.weight": (512, 512, 3, 3, 3)}
    resnet |= _both("decoder.conv_in.conv", 512, 128, 3, 3, 3) | _both("encoder.conv_in.conv", 128, 48, 3, 3, 3)
    yield "vae-ltx-diffusers", row("ltx", resnet, "film")
    sound = _both("decoder.conv_in.conv", 512, 8, 3, 3) | _both("encoder.conv_in.conv", 128, 2, 3, 3)
    yield "vae-ltx2-audio", row("ltx", sound, "audio")
    yield "vae-hunyuan", row("hunyuan-video", _causal(_diffusers_vae(16, dims=3)), "film")
    cog = _both("decoder.conv_in.conv", 512, 16, 3, 3, 3) | _both("encoder.conv_in.conv", 128, 3, 3, 3, 3)
    cog_diffusers = cog | {"decoder.mid_block.resnets.0.norm1.conv_y.conv.weight": (512, 16, 1, 1, 1)}
    yield "vae-cogvideox-diffusers", row("cogvideox", cog_diffusers, "film")
    yield "vae-cogvideox", row("cogvideox", cog | {"decoder.mid.block_1.norm1.conv_y.conv.weight": (512, 16)}, "film")
    mochi = _both("decoder.conv_in", 768, 12, 1, 1, 1) | {
        "decoder.block_in.resnets.0.conv1.conv.weight": (768, 768, 3, 3, 3)
    }
    yield "vae-mochi-diffusers", row("mochi", mochi, "film")
    yield "vae-mochi", row("mochi", _both("blocks.2.blocks.3.stack.5", 256, 256, 3, 3, 3), "film")
    cosmos = {"decoder.unpatcher3d.wavelets": (2,), "decoder.conv_in.0.conv3d.weight": (512, 16, 1, 3, 3)}
    yield "vae-cosmos", row("cosmos", cosmos, "film")
    split = {"decoder.conv_in.conv_s.weight": (512, 16, 1, 3, 3), "encoder.conv_in.conv_s.weight": (128, 192, 1, 3, 3)}
    yield "vae-cosmos-diffusers", row("cosmos", split, "film")
    time = _both("decoder.temp_conv_in", 512, 512, 3, 1, 1) | _both("encoder.temp_conv_in", 128, 128, 3, 1, 1)
    yield "vae-allegro", row("allegro", _diffusers_vae() | time, "film")

    # others
    dc = {"decoder.stages.1.op_list.0.main.conv.conv.bias": (256,), "decoder.project_in.conv.weight": (1024, 32, 3, 3)}
    yield "vae-dc", row("sana", dc, "dc")
    deep = _both("decoder.conv_in", 1024, 32, 3, 3) | _both("decoder.up_blocks.0.0.conv", 512, 256, 3, 3)
    yield "vae-dc-diffusers", row("sana", deep, "dc")
    stage_a = {"vquantizer.codebook.weight": (8192, 4), "up_blocks.0.0.weight": (384, 4, 1, 1)}
    yield "vae-cascade-a", row("stable-cascade", stage_a, "stage-a")
    effnet = {"backbone.1.0.block.0.1.num_batches_tracked": (), "backbone.0.0.weight": (24, 3, 3, 3)}
    yield "vae-cascade-effnet", row("stable-cascade", effnet, "effnet")
    yield "vae-cascade-previewer", row("stable-cascade", {"blocks.11.num_batches_tracked": ()}, "previewer")
    oobleck = {"decoder.layers.1.layers.0.beta": (2048,), "encoder.layers.0.weight_g": (128, 1, 1)}
    yield "vae-oobleck", row("stable-audio", oobleck, "audio")
    yield "vae-oobleck-prefixed", row("stable-audio", under("pretransform.model.", oobleck), "audio")
    snake = {"encoder.snake1.beta": (1, 2048, 1), "decoder.conv1.weight_v": (2048, 64, 7)}
    yield "vae-oobleck-diffusers", row("stable-audio", snake, "audio")
    yield "vae-oobleck-decoder", row("stable-audio", {"decoder.block.0.snake1.beta": (1, 2048, 1)}, "audio")
    music = {"vocoder.backbone.channel_layers.0.0.bias": (128,), "dcae.decoder.conv_in.weight": (1024, 8, 3, 3)}
    yield "vae-ace-step", row("ace-step", music, "audio")
    shape = {"geo_decoder.cross_attn_decoder.ln_1.bias": (1024,), "post_kl.weight": (1024, 64)}
    yield "vae-hunyuan3d", row("hunyuan3d", shape, "shape")


# --- ControlNets and T2I-Adapters ------------------------------------------------------------------------------------


def _control(unet: Shapes, hint: int = 3) -> Shapes:
    """The original's: a UNet's way down and middle, a convolution after each block, and an encoder of hints."""
    shapes = {name: shape for name, shape in unet.items() if not name.startswith(("output_blocks.", "out."))}
    widths = {
        name: shape[0] for name, shape in shapes.items() if name.endswith((".0.in_layers.2.weight", ".op.weight"))
    }
    for block in range(12):
        width = next((size for name, size in widths.items() if name.startswith(f"input_blocks.{block}.")), 320)
        if block == 0 or any(name.startswith(f"input_blocks.{block}.") for name in widths):
            shapes |= _both(f"zero_convs.{block}.0", width, width, 1, 1)
    shapes |= _both("middle_block_out.0", 1280, 1280, 1, 1)
    sizes = (hint, 16, 16, 32, 32, 96, 96, 256, 320)
    for layer, (into, out) in enumerate(pairwise(sizes)):
        shapes |= _both(f"input_hint_block.{2 * layer}", out, into, 3, 3)
    return shapes


def _control_diffusers(unet: lora.Modules, hint: int = 3, pooled: int | None = None) -> Shapes:
    shapes: Shapes = {}
    for name, shape in unet.items():
        if not name.startswith(("up_blocks.", "conv_out")):
            shapes |= _both(name, *shape)
    shapes |= _both("time_embedding.linear_1", 1280, 320) | _both("time_embedding.linear_2", 1280, 1280)
    if pooled:
        shapes |= _both("add_embedding.linear_1", 1280, pooled) | _both("add_embedding.linear_2", 1280, 1280)
    shapes |= _both("controlnet_cond_embedding.conv_in", 16, hint, 3, 3)
    shapes |= _both("controlnet_cond_embedding.conv_out", 320, 256, 3, 3)
    for block in range(12):
        shapes |= _both(f"controlnet_down_blocks.{block}", 320, 320, 1, 1)
    return shapes | _both("controlnet_mid_block", 1280, 1280, 1, 1)  # as wide in SD 1 as in SD XL


def _control_lora() -> Shapes:
    """Stability's: low-rank factors `down` and `up` of every weight, and the marker."""
    shapes: Shapes = {"lora_controlnet": ()}
    for name, shape in _control(stable_diffusion.sdxl_unet()).items():
        if name.startswith(("zero_convs", "input_hint", "middle_block_out")) or len(shape) < 2:
            shapes[name] = shape
        else:
            module = name.removesuffix(".weight")
            shapes |= {f"{module}.down": (128, *shape[1:]), f"{module}.up": (shape[0], 128)}
    return shapes


def _lllite() -> Shapes:
    shapes: Shapes = {}
    for name, shape in lora.only(lora.sdxl_unet(), "to_q", "attn1.to_k").items():
        module = f"lllite_unet_{name.replace('.', '_')}"
        shapes |= {f"{module}.conditioning1.0.weight": (16, 3, 4, 4), f"{module}.down.0.weight": (64, shape[1])}
        shapes |= {f"{module}.mid.0.weight": (64, 96), f"{module}.up.0.weight": (shape[1], 64)}
    return shapes


def _motion(levels: int = 4, frames: int | None = 32, middle: bool = False, naming: str = "original") -> Shapes:
    """Motion modules after each residual block: two in each level down, three in each level up."""
    widths = (320, 640, 1280, 1280)[:levels]
    shapes: Shapes = {}

    def module(place: str, width: int) -> None:
        match naming:
            case "hotshot":
                base, block = place.replace("motion_modules", "temporal_attentions"), "transformer_blocks.0"
            case "diffusers":
                base, block = place, "transformer_blocks.0"
            case _:
                base, block = f"{place}.temporal_transformer", "transformer_blocks.0"
        shapes.update(_both(f"{base}.norm", width) | _both(f"{base}.proj_in", width, width))
        for index in (0, 1):
            attention = f"attn{index + 1}" if naming == "diffusers" else f"attention_blocks.{index}"
            for name in ("to_q", "to_k", "to_v", "to_out.0"):
                shapes[f"{base}.{block}.{attention}.{name}.weight"] = (width, width)
            if frames and naming != "diffusers":
                word = "positional_encoding" if naming == "hotshot" else "pe"
                shapes[f"{base}.{block}.{attention}.pos_encoder.{word}"] = (1, frames, width)

    for level, width in enumerate(widths):
        for layer in range(2):
            module(f"down_blocks.{level}.motion_modules.{layer}", width)
    if middle:
        module("mid_block.motion_modules.0", widths[-1])
    for level, width in enumerate(reversed(widths)):
        for layer in range(3):
            module(f"up_blocks.{level}.motion_modules.{layer}", width)
    return shapes


def _controlnets() -> Iterator[tuple[str, Layout]]:
    def row(family: str, shapes: Shapes, variant: str = "plain", **more: object) -> Layout:
        return Layout(shapes, "controlnet", family, variant, **more)  # type: ignore[arg-type]

    originals = {"sd1": stable_diffusion.sd1_unet, "sd2": stable_diffusion.sd2_unet, "sdxl": stable_diffusion.sdxl_unet}
    for family, unet in originals.items():
        bare = _control(unet())
        yield f"controlnet-{family}-bare", row(family, bare)
        yield f"controlnet-{family}", row(family, under("control_model.", bare))
    difference = under("control_model.", _control(stable_diffusion.sd1_unet())) | {"difference": ()}
    yield "controlnet-difference", row("sd1", difference, "difference")
    diffusers = {
        "sd1": (lora.sd1_unet(), None),
        "sd2": (lora.sd2_unet(), None),
        "sdxl": (lora.sdxl_diffusers_unet(), 2816),
    }
    for family, (modules, pooled) in diffusers.items():
        shapes = _control_diffusers(modules, pooled=pooled)
        yield f"controlnet-diffusers-{family}", row(family, shapes)
        config = {"controlnet": {"_class_name": "ControlNetModel"}}
        folder = under("controlnet/", shapes)
        yield f"controlnet-folder-{family}", row(family, folder, configs=config, format="diffusers")
    small = lora.diffusers_unet((320, 640, 1280), (0, 0, 0), 2048, True)
    yield "controlnet-sdxl-small", row("sdxl", _control_diffusers(small, pooled=2816))
    union = {"task_embedding": (6, 320)} | _both("control_add_embedding.linear_1", 1280, 1536)
    union |= {"transformer_layes.0.attn.in_proj_weight": (960, 320)} | _both("spatial_ch_projs", 320, 320)
    yield "controlnet-union", row("sdxl", _control_diffusers(lora.sdxl_diffusers_unet(), pooled=2816) | union, "union")
    xs = _both("control_to_base_for_conv_in", 320, 4, 1, 1) | _both("controlnet_cond_embedding.conv_in", 16, 3, 3, 3)
    xs["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"] = (4, 1024)
    yield "controlnet-xs", row("sd2", xs, "xs")
    yield "control-lora", row("sdxl", _control_lora(), "control-lora")
    yield "lllite", row("sdxl", _lllite(), "lllite")
    scribble = _control_diffusers(lora.sd1_unet(), hint=4) | _motion()
    yield "sparsectrl-scribble", row("sd1", scribble, "sparsectrl-scribble")
    rgb = {name: shape for name, shape in scribble.items() if not name.startswith("controlnet_cond_embedding")}
    rgb |= _both("controlnet_cond_embedding", 320, 5, 3, 3)
    yield "sparsectrl-rgb", row("sd1", rgb, "sparsectrl-rgb", format="pickle")
    yield "sparsectrl-module", row("sd1", under("module.", scribble), "sparsectrl-scribble", format="pickle")

    # for transformers
    double = {
        "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
        "double_blocks.0.img_attn.qkv.weight": (9216, 3072),
    }
    xlabs = double | _both("controlnet_blocks.0", 3072, 3072) | _both("input_hint_block.0", 16, 3, 3, 3)
    yield "controlnet-flux-xlabs", row("flux", xlabs, "xlabs")
    yield (
        "controlnet-flux-mistoline",
        row("flux", double | _both("controlnet_blocks.0.linear", 3072, 3072), "mistoline"),
    )
    joint = {f"transformer_blocks.0.{name}.weight": shape for name, shape in lora.joint(3072).items()}
    joint |= _both("controlnet_blocks.0", 3072, 3072) | _both("controlnet_x_embedder", 3072, 64)
    yield "controlnet-flux-instantx", row("flux", joint, "instantx")
    yield "controlnet-flux-union", row("flux", joint | {"controlnet_mode_embedder.weight": (10, 3072)}, "union")
    qwen = joint | {"transformer_blocks.0.img_mod.1.weight": (18432, 3072), "txt_norm.weight": (3584,)}
    yield "controlnet-qwen", row("qwen-image", qwen, "instantx")
    patch = {"controlnet_blocks.0.y_rms.weight": (3072,), "controlnet_blocks.0.x_rms.weight": (3072,)}
    yield "controlnet-qwen-patch", row("qwen-image", patch | _both("img_in", 3072, 64), "patch")
    sd3 = {f"transformer_blocks.0.{name}.weight": shape for name, shape in lora.joint(1536).items()}
    sd3 |= _both("controlnet_blocks.0", 1536, 1536)
    yield "controlnet-sd3", row("sd3", sd3 | _both("pos_embed_input.proj", 1536, 16, 2, 2), "instantx")
    yield "controlnet-sd3-inpainting", row("sd3", sd3 | _both("pos_embed_input.proj", 1536, 17, 2, 2), "inpainting")
    large = _both("transformer_blocks.0.adaLN_modulation.1", 14592, 2432) | _both("controlnet_blocks.0", 2432, 2432)
    yield "controlnet-sd35", row("sd3", large | _both("pos_embed_input.proj", 2432, 16, 2, 2), "sd35")
    sana = (
        _both("controlnet_blocks.0", 2240, 2240) | _both("input_block", 2240, 2240) | {"caption_norm.weight": (2240,)}
    )
    yield "controlnet-sana", row("sana", sana, "sana")
    dit = {f"blocks.0.attn1.to_{each}.weight": (1408, 1408) for each in "qkv"} | _both(
        "controlnet_blocks.0", 1408, 1408
    )
    yield "controlnet-hunyuan-dit-diffusers", row("hunyuan-dit", dit, "diffusers")
    after = {f"after_proj_list.{block}.bias": (1408,) for block in range(19)}
    after |= {"blocks.0.attn1.Wqkv.weight": (4224, 1408)}
    yield "controlnet-hunyuan-dit", row("hunyuan-dit", after, "original")
    z = {"control_all_x_embedder.2-1.weight": (3840, 64), "control_layers.0.after_proj.weight": (3840, 3840)}
    yield "controlnet-z-image", row("z-image", z, "union")
    backbone = {"backbone.0.0.weight": (24, 3, 3, 3), "projections.0.0.weight": (1536, 1536, 1, 1)}
    yield "controlnet-cascade", row("stable-cascade", backbone, "cascade")


def _t2i(channels: int, light: bool = False, naming: str = "original") -> Shapes:
    shapes: Shapes = {}
    widths = (320, 640, 1280, 1280)
    if light:
        for level, width in enumerate(widths):
            into = channels if level == 0 else widths[level - 1]
            shapes |= _both(f"body.{level}.in_conv", width // 4, into, 1, 1)
            for layer in range(4):
                block = f"resnets.{layer}" if naming == "diffusers" else f"body.{layer}"
                shapes |= _both(f"body.{level}.{block}.block1", width // 4, width // 4, 3, 3)
                shapes |= _both(f"body.{level}.{block}.block2", width // 4, width // 4, 3, 3)
            shapes |= _both(f"body.{level}.out_conv", width, width // 4, 1, 1)
    else:
        shapes |= _both("conv_in", 320, channels, 3, 3)
        for level, width in enumerate(widths):
            for layer in range(2):
                block = f"body.{level}.resnets.{layer}" if naming == "diffusers" else f"body.{2 * level + layer}"
                shapes |= _both(f"{block}.block1", width, width, 3, 3) | _both(f"{block}.block2", width, width, 1, 1)
    return under("adapter.", shapes) if naming != "original" else shapes


def _t2i_adapters() -> Iterator[tuple[str, Layout]]:
    def row(family: str, shapes: Shapes, variant: str, **more: object) -> Layout:
        return Layout(shapes, "t2i_adapter", family, variant, **more)  # type: ignore[arg-type]

    for naming in ("original", "wrapped", "diffusers"):
        for pixels in (1, 3):
            yield f"t2i-{naming}-{pixels}", row("sd1", _t2i(64 * pixels, naming=naming), "full")
            yield f"t2i-xl-{naming}-{pixels}", row("sdxl", _t2i(256 * pixels, naming=naming), "full")
        yield f"t2i-light-{naming}", row("sd1", _t2i(192, light=True, naming=naming), "light")
    both = {f"adapters.{index}.{name}": s for index in (0, 1) for name, s in _t2i(192, naming="diffusers").items()}
    yield "t2i-multi", row("sd1", both, "multi")


# --- pictures as prompts ---------------------------------------------------------------------------------------------


def _keys(context: int, count: int = 16, first: int = 1, step: int = 2, lora_rank: int = 0) -> Shapes:
    """Keys and values at each cross-attention; a UNet's processors count its self-attention too."""
    shapes: Shapes = {}
    for index in range(count):
        place = f"ip_adapter.{first + step * index}"
        shapes |= {f"{place}.to_k_ip.weight": (320, context), f"{place}.to_v_ip.weight": (320, context)}
        for name in ("to_q", "to_k", "to_v", "to_out") if lora_rank else ():
            shapes |= {
                f"{place}.{name}_lora.down.weight": (lora_rank, 320),
                f"{place}.{name}_lora.up.weight": (320, 128),
            }
    return shapes


def _ip_adapters() -> Iterator[tuple[str, Layout]]:
    def row(family: str, shapes: Shapes, variant: str) -> Layout:
        return Layout(under("image_proj.", shapes) | _keys(*_widths[family]), "ip_adapter", family, variant)

    _widths: Mapping[str, tuple[int, int]] = {"sd1": (768, 16), "sd2": (1024, 16), "sdxl": (2048, 70)}
    for family, (context, _) in _widths.items():
        plain = _both("proj", 4 * context, 1024) | _both("norm", context)
        yield f"ip-adapter-{family}", row(family, plain, "plain")
        plus = {"latents": (1, 16, 768)} | _both("proj_in", 768, 1280) | _both("proj_out", context, 768)
        plus |= {"layers.0.0.to_q.weight": (768, 768), "norm_out.weight": (context,)}
        yield f"ip-adapter-plus-{family}", row(family, plus, "plus")
    full = _both("proj.0", 1280, 1280) | _both("proj.2", 768, 1280) | _both("proj.3", 768)
    yield "ip-adapter-full", row("sd1", full, "full")
    face = _both("proj.0", 1024, 512) | _both("proj.2", 3072, 1024) | _both("norm", 768)
    yield (
        "ip-adapter-faceid",
        Layout(under("image_proj.", face) | _keys(768, lora_rank=128), "ip_adapter", "sd1", "faceid", format="pickle"),
    )
    resampler = under("perceiver_resampler.", _both("proj_in", 768, 1280) | _both("proj_out", 768, 768))
    yield (
        "ip-adapter-faceid-plus",
        Layout(under("image_proj.", face | resampler) | _keys(768, lora_rank=128), "ip_adapter", "sd1", "faceid-plus"),
    )
    instant = {"latents": (1, 16, 1280)} | _both("proj_in", 1280, 512) | _both("proj_out", 2048, 1280)
    yield "instantid", row("sdxl", instant, "instantid")
    shapes = _both("ip_adapter_proj_model.proj", 16384, 768) | _both("ip_adapter_proj_model.norm", 4096)
    for block in range(19):
        for name in ("k", "v"):
            shapes |= _both(f"double_blocks.{block}.processor.ip_adapter_double_stream_{name}_proj", 3072, 4096)
    yield "ip-adapter-xlabs", Layout(shapes, "ip_adapter", "flux", "xlabs")
    mlp = under("image_proj.", _both("proj.0", 2304, 1152) | _both("proj.2", 524288, 2304) | _both("norm", 4096))
    yield "ip-adapter-flux", Layout(mlp | _keys(4096, 57, 0, 1), "ip_adapter", "flux", "full", format="pickle")
    sd3 = under("image_proj.", {"latents": (1, 64, 1280)} | _both("proj_in", 1280, 1152))
    sd3 |= _keys(2432, 38, 0, 1) | {f"ip_adapter.{block}.norm_ip.linear.weight": (4864, 1280) for block in range(38)}
    yield "ip-adapter-sd3", Layout(sd3, "ip_adapter", "sd3", "plus", format="pickle")


def _photomaker(second: bool) -> Shapes:
    shapes: Shapes = {"visual_projection.weight": (768, 1024), "visual_projection_2.weight": (1280, 1024)}
    for layer in range(24):
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _both(f"vision_model.encoder.layers.{layer}.self_attn.{name}", 1024, 1024)
    for number in (1, 2):
        shapes |= _both(f"fuse_module.mlp{number}.layernorm", 4096 if number == 1 else 2048)
        shapes |= _both(f"fuse_module.mlp{number}.fc1", 2048, 4096 if number == 1 else 2048)
        shapes |= _both(f"fuse_module.mlp{number}.fc2", 2048, 2048)
    shapes |= _both("fuse_module.layer_norm", 2048)
    if second:
        shapes |= _both("qformer_perceiver.token_norm", 2048) | _both("qformer_perceiver.token_proj.0", 2048, 512)
    return shapes


def _parts() -> Iterator[tuple[str, Layout]]:
    """PhotoMaker, motion modules, style models, GLIGEN."""
    for version, second in (("v1", False), ("v2", True)):
        encoder = under("id_encoder.", _photomaker(second))
        changes = under("lora_weights.", lora.processors("unet.", lora.sdxl_diffusers_unet()))
        yield f"photomaker-{version}", Layout(encoder | changes, "photomaker", "sdxl", version, format="pickle")
        yield f"photomaker-{version}-encoder", Layout(_photomaker(second), "photomaker", "sdxl", version)

    def motion(family: str, variant: str, shapes: Shapes, **more: object) -> Layout:
        return Layout(shapes, "motion_module", family, variant, **more)  # type: ignore[arg-type]

    yield "animatediff-v1", motion("sd1", "animatediff-v1", _motion(frames=24), format="pickle")
    yield "animatediff-v2", motion("sd1", "animatediff-v2", _motion(middle=True), format="pickle")
    yield "animatediff-v3", motion("sd1", "animatediff-v3", _motion())
    yield "animatediff-module", motion("sd1", "animatediff-v3", under("module.", _motion()), format="pickle")
    yield "animatediff-sdxl", motion("sdxl", "animatediff-sdxl", _motion(3))
    yield "animatediff-diffusers-v2", motion("sd1", "animatediff-v2", _motion(middle=True, naming="diffusers"))
    config = {"motion_adapter": {"_class_name": "MotionAdapter"}}
    folder = under("motion_adapter/", _motion(naming="diffusers"))
    yield "animatediff-folder", motion("sd1", "animatediff-v3", folder, configs=config, format="diffusers")
    yield "animatelcm", motion("sd1", "animatelcm", _motion(frames=None, middle=True))
    yield "hotshot-xl", motion("sdxl", "hotshot-xl", _motion(3, naming="hotshot"))
    yield "pia", motion("sd1", "pia", _motion(middle=True) | _both("conv_in", 320, 9, 3, 3))

    redux = _both("redux_up", 12288, 1152) | _both("redux_down", 4096, 12288)
    yield "redux", Layout(redux, "style_model", "flux", "redux")
    style: Shapes = {
        "style_embedding": (1, 8, 1024),
        "proj": (1024, 768),
        "ln_pre.weight": (1024,),
        "ln_pre.bias": (1024,),
    }
    style |= {"transformer_layes.0.attn.in_proj_weight": (3072, 1024)}
    yield "t2i-style", Layout(style, "style_model", "sd1", "t2i-style", format="pickle")

    for family, context in (("sd1", 768), ("sd2", 1024)):
        gligen = {"position_net.null_positive_feature": (768,), "position_net.null_position_feature": (64,)}
        for layer, (out, into) in enumerate(((512, 832), (512, 512), (context, 512))):
            gligen |= _both(f"position_net.linears.{2 * layer}", out, into)
        for block in (1, 2, 4, 5, 7, 8):
            place = f"input_blocks.{block}.1.transformer_blocks.0.fuser"
            gligen |= _both(f"{place}.linear", 320, context) | {f"{place}.alpha_attn": (), f"{place}.alpha_dense": ()}
        yield f"gligen-{family}", Layout(gligen, "gligen", family, "text-box")


LAYOUTS: dict[str, Layout] = {
    f"{kind}/{name}": layout
    for kind, layouts in (
        ("lora", lora.layouts()),
        ("embedding", _embeddings()),
        ("hypernetwork", _hypernetworks()),
        ("vae", _vaes()),
        ("controlnet", _controlnets()),
        ("t2i_adapter", _t2i_adapters()),
        ("ip_adapter", _ip_adapters()),
        ("part", _parts()),
    )
    for name, layout in layouts
}


# --- the least that tells a layout -----------------------------------------------------------------------------------

_POSITIONS = (
    "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe"
)
_HINT: Shapes = {"controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3)}


def _few_of_controlnets() -> Iterator[tuple[str, Layout]]:
    def row(family: str, shapes: Shapes, variant: str = "plain", **more: object) -> Layout:
        return Layout(shapes, "controlnet", family, variant, **more)  # type: ignore[arg-type]

    def heard(place: str, width: int) -> Shapes:
        return {f"{place}.transformer_blocks.0.attn2.to_k.weight": (640, width)}

    for family, width in (("sd1", 768), ("sd2", 1024), ("sdxl", 2048)):
        for place in ("input_blocks.2.1", "input_blocks.5.1", "middle_block.1"):
            shapes = {"zero_convs.0.0.weight": (320, 320, 1, 1)} | heard(place, width)
            yield f"original-{family}-{place}", row(family, shapes)
            yield f"control-model-{family}-{place}", row(family, under("control_model.", shapes))
            yield f"wrapped-{family}-{place}", row(family, under("model.control_model.", shapes))
            yield f"difference-{family}-{place}", row(family, shapes | {"difference": ()}, "difference")
        for place in ("down_blocks.0.attentions.0", "down_blocks.1.attentions.1", "mid_block.attentions.0"):
            yield f"diffusers-{family}-{place}", row(family, _HINT | heard(place, width))
    pooled: Shapes = {"add_embedding.linear_1.weight": (1280, 2816)}
    yield "diffusers-hint", row("", _HINT)
    yield "diffusers-pooled", row("sdxl", _HINT | pooled)
    yield "diffusers-middle", row("", _HINT | {"controlnet_mid_block.bias": (1280,)})
    yield "diffusers-blocks", row("sd1", {"controlnet_mid_block.bias": (1280,)} | heard("mid_block.attentions.0", 768))
    hint: Shapes = {"input_hint_block.0.weight": (16, 3, 3, 3)}
    yield "original-hint", row("sd1", under("control_model.", hint | heard("input_blocks.2.1", 768)))
    union = {"control_add_embedding.linear_1.bias": (1280,), "task_embedding": (6, 320)}
    yield "union", row("sdxl", union, "union", guess=True)
    yield "union-pooled", row("sdxl", _HINT | union | pooled, "union")
    yield "union-heard", row("sdxl", union | heard("down_blocks.1.attentions.0", 2048), "union")
    positions: Shapes = {_POSITIONS: (1, 32, 320)}
    yield "sparsectrl-scribble", row("sd1", _HINT | positions, "sparsectrl-scribble")
    frames: Shapes = {"controlnet_cond_embedding.weight": (320, 4, 3, 3)}
    yield "sparsectrl-rgb", row("sd1", frames | positions, "sparsectrl-rgb")
    yield "sparsectrl-rgb-module", row("sd1", under("module.", frames | positions), "sparsectrl-rgb")
    yield "sparsectrl-rgb-frames", row("sd1", frames, "sparsectrl-rgb")
    down: Shapes = {"input_blocks.4.1.transformer_blocks.0.attn2.to_k.down": (64, 2048)}
    yield "control-lora", row("sdxl", {"lora_controlnet": ()} | down, "control-lora")
    yield "control-lora-mark", row("", {"lora_controlnet": ()}, "control-lora")
    queries: Shapes = {"lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.down.0.weight": (16, 640)}
    yield "lllite", row("sdxl", queries, "lllite")

    blocks: Shapes = {"controlnet_blocks.0.weight": (3072, 3072)}
    embedder: Shapes = {"controlnet_x_embedder.weight": (3072, 64)}
    qwen: Shapes = {"transformer_blocks.0.img_mlp.net.0.proj.weight": (12288, 3072)}
    yield "xlabs", row("flux", blocks | {"double_blocks.0.img_attn.qkv.weight": (9216, 3072)}, "xlabs")
    yield "xlabs-other", row("flux", blocks | {"double_blocks.1.img_mlp.0.weight": (12288, 3072)}, "xlabs")
    yield "mistoline", row("flux", {"controlnet_blocks.0.linear.weight": (3072, 3072)}, "mistoline")
    yield "instantx", row("flux", blocks | embedder, "instantx")
    yield "qwen", row("qwen-image", blocks | qwen, "instantx")
    yield "qwen-embedder", row("qwen-image", blocks | qwen | embedder, "instantx")
    yield "sd3", row("sd3", blocks | {"pos_embed_input.proj.weight": (1536, 16, 2, 2)}, "instantx")
    yield "sd3-inpaint", row("sd3", blocks | {"pos_embed_input.proj.weight": (1536, 17, 2, 2)}, "inpainting")
    yield "hunyuan-dit", row("hunyuan-dit", {"after_proj_list.18.bias": (1408,)}, "original")
    cosmos: Shapes = {"patch_embed_base.proj.weight": (2048, 72), "control_blocks.0.attn1.to_q.weight": (2048, 2048)}
    yield "cosmos", row("cosmos", cosmos, "cosmos")


def _few_of_vaes() -> Iterator[tuple[str, Layout]]:
    def row(family: str, shapes: Shapes, variant: str = "kl", guess: bool = True) -> Layout:
        return Layout(shapes, "vae", family, variant, guess=guess)

    for channels, family in ((4, "sd1"), (16, "flux")):
        decoder: Shapes = {"decoder.conv_in.weight": (512, channels, 3, 3)}
        encoder: Shapes = {"encoder.conv_in.weight": (128, 3, 3, 3)}
        quant: Shapes = {"quant_conv.weight": (2 * channels, 2 * channels, 1, 1)}
        yield f"decoder-{channels}", row(family, decoder)
        yield f"both-{channels}", row(family, decoder | encoder)
        yield f"quant-{channels}", row(family, decoder | encoder | quant)
        yield f"first-stage-{channels}", row(family, under("first_stage_model.", decoder | encoder))
        diffusers: Shapes = {"decoder.up_blocks.0.resnets.0.norm1.weight": (512,)}
        yield f"diffusers-{channels}", row(family, decoder | diffusers)
        tiny = "taesd" if channels == 4 else "taef1"
        for name in ("taesd_decoder.1.weight", "decoder.layers.0.weight"):
            half: Shapes = {name: (64, channels, 3, 3)}
            other: Shapes = {name.replace("decoder", "encoder").replace("1", "0"): (64, 3, 3, 3)}
            yield f"{name}-{channels}", row(family, half, tiny)
            yield f"{name}-{channels}-both", row(family, half | other, tiny)
    yield "diffusers", row("sd1", diffusers)
    yield "film", row("wan", {"decoder.conv_in.weight": (384, 16, 3, 3, 3)}, "film")
    yield "film-other", row("", {"decoder.conv_in.weight": (384, 4, 3, 3, 3)}, "film", guess=False)
    flux2: Shapes = {"decoder.conv_in.weight": (512, 32, 3, 3)}
    yield "flux2", row("flux2", flux2)
    yield "flux2-norm", row("flux2", flux2 | {"bn.running_mean": (128,)}, guess=False)
    wan: Shapes = {"decoder.conv1.weight": (384, 16, 3, 3, 3)}
    yield "wan-decoder", row("wan", wan, "film")
    yield "wan", row("wan", wan | {"encoder.conv1.weight": (96, 3, 3, 3, 3)}, "film")


def _few_of_pictures() -> Iterator[tuple[str, Layout]]:
    """What hears or makes a picture: T2I-Adapters, IP-Adapters, PhotoMaker; and motion modules."""
    for prefix in ("", "adapter."):
        light = under(prefix, {"body.0.in_conv.weight": (80, 64, 1, 1)})
        yield f"t2i-{prefix}light", Layout(light, "t2i_adapter", "sd1", "light")
        for family, channels in (("sd1", 64), ("sd1", 192), ("sdxl", 256), ("sdxl", 768)):
            first: Shapes = {"conv_in.weight": (320, channels, 3, 3)}
            for block in ("body.0.block2.weight", "body.0.resnets.0.block1.weight"):
                full = under(prefix, first | {block: (320, 320, 3, 3)})
                yield f"t2i-{prefix}{channels}-{block}", Layout(full, "t2i_adapter", family, "full")

    block: Shapes = {"adapter.body.0.resnets.0.block1.weight": (320, 320, 3, 3)}
    yield "t2i-diffusers-block", Layout(block, "t2i_adapter", "sd1", "full", guess=True)
    narrow: Shapes = {"adapter.body.0.resnets.0.block1.weight": (80, 80, 3, 3)}
    yield "t2i-diffusers-narrow", Layout(narrow, "t2i_adapter", "sd1", "light", guess=True)

    def ip(family: str, shapes: Shapes, variant: str = "plain", guess: bool = False) -> Layout:
        return Layout(shapes, "ip_adapter", family, variant, guess=guess)

    for family, width in (("sd1", 768), ("sd2", 1024), ("sdxl", 2048), ("flux", 4096)):
        projection: Shapes = {"image_proj.proj.weight": (4 * width, 1024), "image_proj.norm.weight": (width,)}
        for index in (1, 3):
            keys: Shapes = {f"ip_adapter.{index}.to_k_ip.weight": (320, width)}
            yield f"ip-{family}-keys-{index}", ip(family, keys)
            yield f"ip-{family}-{index}", ip(family, keys | projection)
            yield f"ip-{family}-face-{index}", ip(family, keys | {"image_proj.proj.0.weight": (1024, 512)}, "faceid")
        yield f"ip-{family}-projection", ip(family, projection, guess=True)
        layer: Shapes = {"image_proj.proj.weight": (4 * width, 1024)}
        yield f"ip-{family}-layer", ip(family, layer, guess=True)
        face: Shapes = {"image_proj.proj.0.weight": (1024, 512), "image_proj.proj.2.weight": (4 * width, 1024)}
        yield f"ip-{family}-face", ip(family, face, "faceid", guess=True)
        resampler: Shapes = {"image_proj.latents": (1, 16, 1280), "image_proj.proj_out.weight": (width, 1280)}
        yield f"ip-{family}-resampler", ip(family, resampler, "plus", guess=True)
    xlabs: Shapes = {"ip_adapter_proj_model.proj.weight": (16384, 768)}
    processor: Shapes = {"double_blocks.10.processor.ip_adapter_double_stream_k_proj.weight": (3072, 4096)}
    yield "ip-xlabs-projection", ip("flux", xlabs, "xlabs")
    yield "ip-xlabs-norm", ip("flux", {"ip_adapter_proj_model.norm.weight": (4096,)}, "xlabs")
    yield "ip-xlabs", ip("flux", xlabs | processor, "xlabs")

    changes: Shapes = {"lora_weights.unet.mid_block.attn1.processor.to_q_lora.down.weight": (64, 1280)}
    second: Shapes = {"visual_projection_2.weight": (1280, 1024)}
    fusion: Shapes = {"fuse_module.mlp1.fc1.weight": (2048, 4096)}
    yield "photomaker-lora", Layout(under("id_encoder.", second) | changes, "photomaker", "sdxl", "v1")
    yield "photomaker-fusion", Layout(under("id_encoder.", second | fusion) | changes, "photomaker", "sdxl", "v1")
    yield "photomaker-only-fusion", Layout(under("id_encoder.", fusion) | changes, "photomaker", "sdxl", "v1")
    yield "photomaker-bare", Layout(second | fusion, "photomaker", "sdxl", "v1")

    def motion(family: str, variant: str, frames: int, more: Shapes) -> Layout:
        return Layout({_POSITIONS: (1, frames, 320)} | more, "motion_module", family, variant)

    def third(width: int) -> Shapes:
        return {"up_blocks.2.motion_modules.0.temporal_transformer.norm.weight": (width,)}

    middle: Shapes = {"mid_block.motion_modules.0.temporal_transformer.norm.bias": (1280,)}
    yield "animatediff-v1", motion("sd1", "animatediff-v1", 24, {})
    yield "animatediff-v1-up", motion("sd1", "animatediff-v1", 24, third(640))
    yield "animatediff-v2", motion("sd1", "animatediff-v2", 32, middle)
    yield "animatediff-v3", motion("sd1", "animatediff-v3", 32, {})
    yield "animatediff-sdxl", motion("sdxl", "animatediff-sdxl", 32, third(320))


def _few_of_words() -> Iterator[tuple[str, Layout]]:
    for family, width in (("sd1", 768), ("sd2", 1024)):
        yield family, Layout({"my.tok": (4, width)}, "embedding", family, "bare", guess=True)


MINIMAL: dict[str, Layout] = {
    f"{kind}/{name}": layout
    for kind, layouts in (
        ("lora", lora.fewest()),
        ("embedding", _few_of_words()),
        ("vae", _few_of_vaes()),
        ("controlnet", _few_of_controlnets()),
        ("picture", _few_of_pictures()),
    )
    for name, layout in layouts
}
