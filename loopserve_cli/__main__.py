"""`python -m loopserve_cli`, the same as `loopserve`."""

from __future__ import annotations

import sys

from loopserve_cli.app import main

if __name__ == "__main__":
    sys.exit(main())
