"""What every forked process of the tests would else import and build anew: see `forked.py`.

Imported by the server that they are forked from, which has one thread and keeps to it.
"""

from __future__ import annotations

import atexit
import gc
import pkgutil
from importlib import import_module
from pathlib import Path

import torch
from transformers.conversion_mapping import get_checkpoint_conversion_mapping

import preceptor.recipes
import preceptor.reporting
from preceptor.reporting.parts.page import templates

ARCHITECTURES = ("llama", "mistral", "mixtral", "phi3", "qwen3")  # of the lab

torch.set_num_threads(1)
for module in pkgutil.walk_packages(preceptor.recipes.__path__, "preceptor.recipes."):
    import_module(module.name)
for name in ("preceptor.cli", "preceptor.fleets.here", "preceptor.teachers.transformers"):
    import_module(name)
for name in ARCHITECTURES:
    import_module(f"transformers.models.{name}.modeling_{name}")
    get_checkpoint_conversion_mapping(name)  # hundreds of patterns, compiled at the first model
for place in Path(preceptor.reporting.__path__[0]).rglob("*.html.j2"):
    templates().get_template(place.relative_to(preceptor.reporting.__path__[0]).as_posix())
gc.collect()
gc.freeze()  # no process looks through all this again, or copies it by looking
atexit.register(gc.unfreeze)  # or libraries report what the server leaves behind as leaked
