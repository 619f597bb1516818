"""loopserve: long multi-turn chat with a local model, with profiling."""

__version__ = "0.1.0"
