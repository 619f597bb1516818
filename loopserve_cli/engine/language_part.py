"""The language model alone of one that also sees or hears, where the rest needs a package that is not installed.

Gemma 3n's pictures need timm. Its words do not, and loopserve feeds nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from loopserve_cli.engine.sources import Source

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# How a whole model's files name what the language model alone calls model.* and lm_head.*, now and formerly.
NAMES = {
    r"^model\.language_model\.": "model.",
    r"^language_model\.model\.": "model.",
    r"^language_model\.lm_head\.": "lm_head.",
}


def language_part(
    config: PreTrainedConfig, source: Source, name: str, warn: Callable[[str], None]
) -> tuple[PreTrainedConfig, Source]:
    """The model's configuration and source, or those of its language model; `warn` is told what is left out."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    text = config.get_text_config()
    if text is config or type(text) not in AutoModelForCausalLM._model_mapping:
        return config, source
    try:
        with init_empty_weights():
            AutoModelForCausalLM.from_config(config)
    except ImportError as error:
        needs = " ".join(str(error).split()).partition(". ")[0]
        warn(f"{name}: only its language model is loaded ({needs})")
        return text, replace(source, language_only=True)
    return config, source
