"""What the tables of `bench device` show of each stage's records."""

from __future__ import annotations

from loopserve_cli.bench.columns import Column, text
from loopserve_cli.measure.figures import mebibytes, number, percent, whole


def scientific(value: float) -> str:
    """A number of any size in three digits."""
    return f"{value:.2e}"


SIZES = (Column("rows", "rows", whole), Column("keys", "keys", whole))
COLUMNS: dict[str, tuple[Column, ...]] = {
    "environment": (
        Column("what", "what", text),
        Column("dtype", "dtype", text),
        Column("GB/s", "gb_per_s", number),
        Column("TFLOP/s", "tflops", number),
        Column("eager us", "eager_us", number),
        Column("captured us", "captured_us", number),
    ),
    "launches": (
        Column("what", "what", text),
        Column("per", "per", text),
        Column("launches", "launches", number),
        Column("at most", "most_launches", whole),
        Column("waits", "waits", number),
        Column("at most", "most_waits", whole),
    ),
    "tests": (
        Column("passed", "passed", whole),
        Column("failed", "failed", whole),
        Column("errors", "error", whole),
        Column("skipped", "skipped", whole),
        Column("to the end", "finished", text),
        Column("s", "seconds", number),
    ),
    "choosing": (
        *SIZES,
        Column("setting", "setting", text),
        Column("part", "part", text),
        Column("eager ms", "eager_ms", number),
        Column("captured ms", "captured_ms", number),
        Column("kernels", "kernels", whole),
        Column("their ms", "device_ms", number),
        Column("launches", "launches", whole),
        Column("waits", "waits", whole),
        Column("density %", "density", percent),
    ),
    "costs": (
        Column("dtype", "dtype", text),
        Column("size", "size", whole),
        Column("dense cell s", "dense_cell", scientific),
        Column("sparse cell s", "sparse_cell", scientific),
        Column("sampled pair s", "sampled_pair", scientific),
        Column("fixed s", "fixed", scientific),
        Column("product s", "product", scientific),
        Column("density %", "density", percent),
        Column("choosing of dense %", "choosing_of_dense", percent),
    ),
    "attention": (
        *SIZES,
        Column("size", "size", whole),
        Column("dtype", "dtype", text),
        Column("way", "way", text),
        Column("density %", "density", percent),
        Column("ms", "ms", number),
        Column("TFLOP/s", "tflops", number),
    ),
    "decode-attention": (
        Column("keys", "keys", whole),
        Column("size", "size", whole),
        Column("dtype", "dtype", text),
        Column("eager ms", "eager_ms", number),
        Column("captured ms", "captured_ms", number),
        Column("GB/s", "gb_per_s", number),
        Column("of a copy %", "of_copy", percent),
    ),
    "token": (
        Column("profile", "profile", text),
        Column("keys", "keys", whole),
        Column("TPOT ms", "tpot_ms", number),
        Column("GPU ms", "device_ms", number),
        Column("busy %", "busy", percent),
        Column("kernels", "kernels", number),
        Column("steps in a graph", "graph_replays", whole),
        Column("step", "step_kernels", text),
    ),
    "memory": (
        Column("profile", "profile", text),
        Column("keys", "keys", whole),
        Column("prefill ms", "prefill_ms", number),
        Column("its peak MiB", "prefill_peak_bytes", mebibytes),
        Column("TPOT ms", "answer_tpot_ms", number),
        Column("its peak MiB", "answer_peak_bytes", mebibytes),
        Column("KV device MiB", "kv_device_bytes", mebibytes),
        Column("KV host MiB", "kv_host_bytes", mebibytes),
        Column("working set MiB", "working_set_bytes", mebibytes),
        Column("RSS MiB", "answer_rss_bytes", mebibytes),
    ),
}
