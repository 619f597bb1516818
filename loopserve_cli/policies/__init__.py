"""Acceleration methods: which lines prefill computes. They know tensors and settings, and nothing of the engine."""
