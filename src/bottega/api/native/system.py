"""The machine and its server: devices, memory, disk, the log, settings."""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from bottega.api.access import Caller, need
from bottega.api.errors import without_paths
from bottega.api.native.inside import Aside, Shop
from bottega.api.native.shapes import Asked, Told
from bottega.version import __version__
from bottega.workshop import Workshop

router = APIRouter(tags=["system"])

Reader = Annotated[Caller, Depends(need("read"))]
Admin = Annotated[Caller, Depends(need("admin"))]
