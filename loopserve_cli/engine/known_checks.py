"""What the checks of models' attention found, so that the next start of the same model need not look again."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopserve_cli.engine.attention_check import AttentionCheck, check_attention
from loopserve_cli.engine.handover import Handover
from loopserve_cli.engine.identity import config_hash
from loopserve_cli.errors import ModelError
from loopserve_cli.folders import cache_folder
from loopserve_cli.stats import versions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What decides what is found, beside the model: other code must look again.
CODE = ("attention.py", "attention_check.py", "handover.py", "masks.py", "model_call.py", "rotary.py", "store.py")
MOST = 500


def checked(model: PreTrainedModel, layers: int, name: str, quant: str | None, file: Path | None = None) -> Handover:
    """Set a model to the attention that it runs with, known from an earlier start or found now.

    Raises ModelError, in one line that names the architecture, for a model that cannot run.
    """
    file = file or cache_folder() / "attention-checks.json"
    key = fingerprint(model, quant)
    known = _read(file)
    found = _check_of(known.get(key))
    if found is not None:
        model.set_attn_implementation(found.implementation)
        return found.handover
    try:
        found = check_attention(model, layers)
    except ModelError as error:
        kind = model.config.model_type
        how, other = ("", "use") if quant is None else (f" with --quant {quant}", "leave --quant out, or use")
        raise ModelError(
            f"{name}: loopserve cannot run architecture {kind!r}{how}: {error}; {other} another model"
        ) from None
    _write(file, {**known, key: {"implementation": found.implementation, **found.handover.to_json()}})
    return found.handover


def fingerprint(model: PreTrainedModel, quant: str | None) -> str:
    """A model's architecture and sizes, how it is run, and all code that is part of it; its weights do not matter."""
    folder = Path(__file__).parent
    files = [*(folder / name for name in CODE), Path(inspect.getfile(type(model)))]  # it may come with the model
    code = b"".join(file.read_bytes() for file in files)
    facts = [type(model).__qualname__, config_hash(model.config), str(model.dtype), quant, model.device.type]
    return hashlib.sha256(code + json.dumps([facts, versions()]).encode()).hexdigest()[:32]


def _check_of(row: Any) -> AttentionCheck | None:
    try:
        return AttentionCheck(str(row["implementation"]), Handover.from_json(row))
    except (KeyError, TypeError, ValueError):
        return None


def _read(file: Path) -> dict[str, Any]:
    """What is known; a file that is not there or not whole is nothing."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(file: Path, known: dict[str, Any]) -> None:
    """Keep the newest; what cannot be written is looked for again next time."""
    rows = dict(list(known.items())[-MOST:])
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    with suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, file)
