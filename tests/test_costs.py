"""The cost model: what is read, which device's figures are taken, and when choosing pays by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from loopserve_cli.doctor.costs import cost_check
from loopserve_cli.errors import UsageError
from loopserve_cli.policies.prefill import device_costs
from loopserve_cli.policies.prefill.costs import ASKED, MOST_LOSS, Costs, at
from loopserve_cli.policies.prefill.costs_file import costs_text, read_costs
from loopserve_cli.policies.prefill.device_costs import costs_for, model_of, nearest_costs, own_file, shipped_file

PLAIN = Costs(
    measured_on="cpu",
    dtype="float32",
    dense_cell={64: 1.0},
    sparse_cell={64: 2.0},
    sampled_pair={64: 10.0},
    product=1e-9,
    fixed=100.0,
    where="a test",
    torch="2.13.0",
    date="2026-11-25",
)
H100 = replace(PLAIN, measured_on="NVIDIA H100 80GB HBM3", dtype="bfloat16")


def test_most_density_is_where_a_sparse_head_costs_as_much_as_a_dense_one() -> None:
    assert PLAIN.most_density(64) == 0.5
    assert replace(PLAIN, sparse_cell={64: 0.5}).most_density(64) == 1.0  # never more than all of it
    two = replace(PLAIN, dense_cell={64: 1.0, 128: 2.0}, sparse_cell={64: 2.0, 128: 8.0})
    assert (two.most_density(64), two.most_density(128), two.most_density()) == (0.5, 0.25, 0.25)


def test_a_coefficient_of_a_size_nobody_measured_is_in_proportion_to_the_nearest() -> None:
    assert at({64: 1.0, 128: 3.0}, 128) == 3.0
    assert at({64: 1.0, 128: 3.0}, 256) == 6.0
    assert at({64: 1.0, 128: 3.0}, 32) == 0.5


def test_choosing_pays_where_what_it_may_lose_is_little() -> None:
    # One head, n = N: dense is N (N + 1) / 2, choosing 100 + 16 rows x N x 10, of which a third may be lost.
    def bound(keys: int) -> bool:
        dense = keys * (keys + 1) / 2
        return (100 + 160 * keys) * ASKED <= MOST_LOSS * (dense + keys * 12 * 64**2 * 1e-9)

    answers = {keys: PLAIN.pays(keys, keys, 1, 64, 16) for keys in (1000, 3000, 3500, 3600, 10_000)}
    assert answers == {keys: bound(keys) for keys in answers}
    assert answers[1000] is False and answers[10_000] is True


def test_choosing_does_not_pay_where_sparse_cells_cost_ten_dense_ones() -> None:
    assert PLAIN.pays(100_000, 100_000, 1, 64, 16)
    assert not replace(PLAIN, sparse_cell={64: 10.0}).pays(100_000, 100_000, 1, 64, 16)


def test_a_fixed_cost_and_more_sampled_rows_close_the_gate() -> None:
    assert not replace(PLAIN, fixed=1e9).pays(10_000, 10_000, 1, 64, 16)
    assert not PLAIN.pays(10_000, 10_000, 1, 64, 64)
    assert PLAIN.pays(10_000, 10_000, 1, 64, 16)
    # What the rest of a layer costs dilutes what choosing may lose.
    assert replace(PLAIN, product=1.0).pays(10_000, 10_000, 1, 64, 64)


def test_the_exact_device_and_dtype_come_first() -> None:
    known = [PLAIN, H100, replace(H100, dtype="float32", fixed=1.0), replace(PLAIN, dtype="bfloat16", fixed=2.0)]
    assert nearest_costs(known, "NVIDIA H100 80GB HBM3", "bfloat16").fixed == 100.0
    assert nearest_costs(known, "NVIDIA H100 80GB HBM3", "float32").fixed == 1.0
    assert nearest_costs(known, "cpu", "bfloat16").fixed == 2.0
    assert nearest_costs(known, "cpu", "float16").dtype == "float32"


def test_the_same_model_stands_in_and_says_so() -> None:
    found = nearest_costs([PLAIN, H100], "NVIDIA H100 PCIe", "bfloat16")
    assert found.measured_on == "NVIDIA H100 80GB HBM3" and found.used_for == "NVIDIA H100 PCIe"
    assert found.note() == (
        "NVIDIA H100 PCIe was never measured: it goes by NVIDIA H100 80GB HBM3's costs; see bench device"
    )
    assert nearest_costs([PLAIN, H100], "NVIDIA H100 80GB HBM3", "bfloat16").note() is None


def test_a_gpu_that_nobody_measured_takes_the_cpus_ratios_and_says_so() -> None:
    found = nearest_costs([H100, PLAIN], "NVIDIA A100-SXM4-80GB", "bfloat16")
    assert found.measured_on == "cpu"
    assert "NVIDIA A100-SXM4-80GB was never measured: it goes by cpu's costs" in str(found.note())


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("NVIDIA L40S", "L40S"),
        ("cpu", None),
        ("meta", None),
    ],
)
def test_the_model_in_a_gpus_name(name: str, model: str | None) -> None:
    assert model_of(name) == model


def test_the_shipped_file_has_a_cpu_in_both_dtypes() -> None:
    shipped = {(costs.measured_on, costs.dtype) for costs in read_costs(shipped_file())}
    assert {("cpu", "float32"), ("cpu", "bfloat16")} <= shipped
    for dtype in (torch.float32, torch.bfloat16):
        costs = costs_for(torch.device("cpu"), dtype)
        assert costs.note() is None and 0 < costs.most_density() <= 1
        assert costs.pays(131_072, 131_072, 32, 128, 64) and not costs.pays(64, 64, 32, 128, 16)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "costs.toml"
    written = [replace(PLAIN, where='a "quoted" \\ place\n'), H100]
    file.write_text(costs_text(written), encoding="utf-8")
    assert read_costs(file) == [replace(PLAIN, where='a "quoted" \\ place '), H100]


def test_the_users_own_file_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    before = costs_for(torch.device("cpu"), torch.float32)
    own = own_file()
    assert own.parent.parent == tmp_path
    own.parent.mkdir()
    own.write_text(costs_text([replace(PLAIN, fixed=0.125)]), encoding="utf-8")
    assert costs_for(torch.device("cpu"), torch.float32).fixed == 0.125
    assert before.fixed != 0.125
    # Its only entry is float32: the shipped bfloat16 is nearer.
    assert costs_for(torch.device("cpu"), torch.bfloat16).fixed != 0.125


def test_the_doctor_says_whose_costs_are_gone_by(monkeypatch: pytest.MonkeyPatch) -> None:
    found = cost_check("cpu", "float32")
    assert found.status == "ok" and found.found.startswith("of attention and choosing, measured on ")
    monkeypatch.setattr(device_costs, "device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    found = cost_check("cpu", "float32")
    assert (found.status, found.found) == (
        "note",
        "NVIDIA A100-SXM4-80GB was never measured: it goes by cpu's costs",
    )
    assert "--write-costs" in str(found.advice)


def test_the_doctor_says_that_the_users_costs_are_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    own_file().parent.mkdir()
    own_file().write_text("measured = 3", encoding="utf-8")
    found = cost_check("cpu", "float32")
    assert found.status == "problem" and "no [[measured]]" in found.found


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("measured = 3", "no [[measured]]"),
        ("= nothing", "no file of costs"),
        ('[[measured]]\nmeasured_on = "cpu"', "dtype must be a text"),
        (costs_text([PLAIN]).replace("1.000e+02", "-1.0"), "fixed must be a number of seconds above 0"),
        (costs_text([PLAIN]).replace("{ 64 = 1.000e+00 }", "{ 0 = 1.0 }"), "dense_cell must say seconds by head size"),
        (costs_text([PLAIN]).replace("64 = 2.000e+00", "64 = nan"), "sparse_cell.64 must be a number of seconds"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str, wrong: str) -> None:
    file = tmp_path / "costs.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as error:
        read_costs(file)
    assert wrong in str(error.value) and str(file) in str(error.value) and "\n" not in str(error.value).strip()
