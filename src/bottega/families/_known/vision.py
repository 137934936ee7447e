"""Networks that see: detectors, segmenters, taggers and the annotators of ControlNet, in single files."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bottega.families._known._signature import PART, Is, Naming, Signature, Variant, known

_PREFIXES = ("", "module.", "model.", "ema.")


def _sees(
    id: str,
    title: str,
    kind: str,
    *namings: Naming,
    types: tuple[str, ...] = (),
    named: Mapping[int, str] = MappingProxyType({}),
) -> Signature:
    return Signature(id, title, "image", namings, types, kind=kind, part="network", prefixes=_PREFIXES, named=named)


def _yolo(head: int) -> Naming:
    """Ultralytics' YOLO 8 and later: its head is the last of its layers, the 22nd in version 8, the 23rd in 11."""
    return Naming(
        (f"model.{head}.dfl.conv.weight", "model.0.conv.weight", f"model.{head}.cv2.0.0.conv.weight"),
        sizes={"width": ("model.0.conv.weight", 0), "classes": (f"model.{head}.cv3.0.2.weight", 0)},
        variants=(
            Variant("segment", (Is(f"model.{head}.proto.cv1.conv.weight"),), "it makes masks too"),
            Variant("pose", (Is(f"model.{head}.cv4.0.2.weight"),), "it finds key points too, or turned boxes"),
            Variant("detect", (), "it finds boxes"),
        ),
        label="Ultralytics'",
    )


SIGNATURES = (
    _sees(
        "yolo",
        "YOLO",
        "detector",
        *(_yolo(head) for head in (22, 23, 21, 28, 29, 24)),
        *(
            Naming(
                (f"model.{head}.anchors", "model.0.conv.weight", f"model.{head}.m.0.weight"),
                sizes={"width": ("model.0.conv.weight", 0)},
                variants=(Variant("v5", (), "anchors in its head: version 5 or 7"),),
                label="Ultralytics'",
            )
            for head in (24, 33, 77, 105)
        ),
    ),
    _sees(
        "sam",
        "Segment Anything",
        "segmenter",
        Naming(
            (
                "image_encoder.patch_embed.proj.weight",
                "mask_decoder.iou_token.weight",
                "prompt_encoder.no_mask_embed.weight",
            ),
            sizes={"width": ("image_encoder.patch_embed.proj.weight", 0)},
            counts={"layers": "image_encoder.blocks.{}.attn.qkv.weight"},
            variants=(
                Variant("hq", (Is("mask_decoder.hf_token.weight"),), "a token of high quality: SAM-HQ"),
                Variant("1"),
            ),
            label="Meta's",
        ),
        Naming(
            ("image_encoder.patch_embed.seq.0.c.weight", "mask_decoder.iou_token.weight"),
            variants=(Variant("mobile", (), "a TinyViT sees for it: MobileSAM"),),
            label="Meta's",
        ),
        Naming(
            ("image_encoder.trunk.patch_embed.proj.weight", "sam_mask_decoder.iou_token.weight"),
            sizes={"width": ("image_encoder.trunk.patch_embed.proj.weight", 0)},
            variants=(Variant("2", (), "a Hiera trunk: SAM 2"),),
            label="Meta's",
        ),
        Naming(
            ("vision_encoder.patch_embed.projection.weight", "mask_decoder.iou_token.weight"),
            sizes={"width": ("vision_encoder.patch_embed.projection.weight", 0)},
            variants=(Variant("1"),),
            label="transformers",
        ),
        types=("sam", "sam2", "sam2_video", "sam3_video", "sam3_tracker", "sam_hq", "edgetam"),
        named={768: "B", 1024: "L", 1280: "H"},
    ),
    _sees(
        "depth-anything",
        "Depth Anything",
        "depth_estimator",
        Naming(
            ("depth_head.scratch.refinenet1.out_conv.weight", "pretrained.blocks.0.attn.qkv.weight"),
            sizes={"width": ("pretrained.patch_embed.proj.weight", 0)},
            counts={"layers": "pretrained.blocks.{}.attn.qkv.weight"},
            label="its own",
        ),
        types=("depth_anything", "prompt_depth_anything"),
        named={384: "S", 768: "B", 1024: "L", 1536: "G"},
    ),
    _sees(
        "midas",
        "MiDaS",
        "depth_estimator",
        Naming(
            ("scratch.refinenet1.out_conv.weight", "pretrained.model.patch_embed.proj.weight"),
            sizes={"width": ("pretrained.model.patch_embed.proj.weight", 0)},
            variants=(Variant("dpt"),),
            label="its own",
        ),
    ),
    _sees(
        "blip",
        "BLIP",
        "captioner",
        Naming(
            ("text_decoder.bert.embeddings.word_embeddings.weight", "visual_encoder.blocks.0.attn.qkv.weight"),
            sizes={"width": ("visual_encoder.patch_embed.proj.weight", 0)},
            counts={"layers": "visual_encoder.blocks.{}.attn.qkv.weight"},
            label="Salesforce's",
        ),
        types=("blip",),
        named={768: "base", 1024: "large"},
    ),
    _sees("deepdanbooru", "DeepDanbooru", "tagger", Naming(("n_Conv_0.weight", "n_Conv_1.weight"), label="its own")),
    Signature(
        "sd-safety-checker",
        "Stable Diffusion's safety checker",
        "image",
        (
            Naming(
                ("concept_embeds", "special_care_embeds", "vision_model.vision_model.embeddings.class_embedding"),
                sizes={"concepts": ("concept_embeds", 0)},
                label="transformers",
            ),
        ),
        kind="safety_checker",
        category=PART,
        part="safety_checker",
        prefixes=("", "safety_checker."),
    ),
    _sees(
        "retinaface",
        "RetinaFace",
        "detector",
        Naming(
            ("BboxHead.0.conv1x1.weight", "ClassHead.0.conv1x1.weight", "LandmarkHead.0.conv1x1.weight"),
            label="its own",
        ),
    ),
    _sees(
        "bisenet",
        "BiSeNet",
        "segmenter",
        Naming(("cp.resnet.conv1.weight", "conv_out.conv_out.weight"), label="its own"),
    ),
    _sees(
        "openpose",
        "OpenPose",
        "pose_estimator",
        Naming(("Mconv7_stage6_L2.weight", "conv1_1.weight"), variants=(Variant("body"),), label="its own"),
        Naming(("Mconv7_stage6.weight", "conv1_1.weight"), variants=(Variant("hand"),), label="its own"),
    ),
    _sees(
        "hed",
        "HED",
        "edge_detector",
        Naming(("block1.convs.0.weight", "block1.projection.weight", "block5.projection.weight"), label="ControlNet's"),
    ),
    _sees(
        "aesthetic-predictor",
        "an aesthetic predictor",
        "scorer",
        Naming(
            ("layers.7.weight", "layers.0.weight", "layers.2.weight", "layers.4.weight", "layers.6.weight"),
            where=(Is("layers.0.weight", 0, (1024,)), Is("layers.7.weight", 0, (1,)), Is("layers.0.weight", rank=2)),
            sizes={"width": ("layers.0.weight", 1)},
            label="LAION's",
        ),
    ),
)

KNOWN = known(SIGNATURES)
