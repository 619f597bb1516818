"""Triton kernels for long dialogues, each with a torch twin of the same signature. Imports only torch and triton."""
