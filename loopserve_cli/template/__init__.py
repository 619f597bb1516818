"""The chat template: messages in, token ids out, and nothing that was said changed on the way."""

from loopserve_cli.template.rows import row_of
from loopserve_cli.template.template import Template

__all__ = ["Template", "row_of"]
