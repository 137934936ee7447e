"""Devices, number formats, memory and weights: what every network needs, whatever its family."""

import os

# Either lets oneDNN compute in bfloat16 or TF32 what a recipe wants in float32. They are read once, while torch is
# imported, and nothing can take them back later; so they go here, before any module of this room imports it.
for _variable in ("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"):
    os.environ.pop(_variable, None)
