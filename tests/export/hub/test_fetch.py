"""Models by hub id: what is fetched of a repository, from the hub or its cache, and refusals."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from giffusion.engine.errors import DiskFullError, ModelError
from giffusion.export.hub.fetch import fetch, is_hub_id
from tests.export.hub.hub_server import COMMIT, Hub, Repo, serve

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": [None, None],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
SMALL = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "vae/config.json",
}
PLAIN = {
    "text_encoder/model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
}
HALF = {name.replace(".safetensors", ".fp16.safetensors") for name in PLAIN}
UNUSED = {
    ".gitattributes",
    "README.md",
    "feature_extractor/preprocessor_config.json",
    "safety_checker/config.json",
    "safety_checker/model.safetensors",
    "text_encoder/pytorch_model.bin",
    "text_encoder_2/model.safetensors",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/model.onnx",
    "v1-5-pruned.ckpt",
    "v1-5-pruned.safetensors",
    "vae/flax_model.msgpack",
    "vae_decoder/model.onnx",
}


def files(names: set[str], index: object = INDEX) -> dict[str, bytes]:
    return {
        name: json.dumps(index).encode() if name == "model_index.json" else name.encode()
        for name in names
    }


def repos() -> dict[str, Repo]:
    everything = files(SMALL | PLAIN | HALF | UNUSED)
    pickles = SMALL | PLAIN - {"vae/diffusion_pytorch_model.safetensors"}
    shards = {f"unet/diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    shards |= {"unet/diffusion_pytorch_model.safetensors.index.json"}
    half_shards = {
        f"unet/diffusion_pytorch_model.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)
    }
    half_shards |= {"unet/diffusion_pytorch_model.safetensors.index.fp16.json"}
    plain_rest = PLAIN - {"unet/diffusion_pytorch_model.safetensors"}
    optimum = {f"{part}/model.onnx" for part in ("unet", "vae_decoder", "text_encoder")}
    optimum |= {"unet/model.onnx_data", "vae_decoder/config.json"}
    flux = INDEX | {"_class_name": "FluxPipeline", "transformer": ["diffusers", "X"]}
    del flux["unet"]
    vae = {"config.json", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"}
    return {
        "lab/model": Repo(everything, ("main", "v1", COMMIT)),
        "lab/half": Repo(files(SMALL | HALF)),
        "lab/shards": Repo(files(SMALL | plain_rest | shards | half_shards)),
        "lab/optimum": Repo(files(SMALL | optimum | {"unet/model.bin"})),
        "lab/pickles": Repo(files(pickles | {"vae/diffusion_pytorch_model.bin"})),
        "lab/bare": Repo(files(SMALL)),
        "lab/flux": Repo(files(SMALL, flux)),
        "lab/listed": Repo(files({"model_index.json"}, ["unet"])),
        "lab/vae": Repo(files(vae)),
        "lab/file": Repo(
            files({"README.md", "merge_v2.0.fp16.safetensors", "merge_v2.0.safetensors"})
        ),
        "lab/merges": Repo(files({"a.safetensors", "b.safetensors"})),
        "lab/ckpt": Repo(files({"merge.ckpt"})),
        "lab/none": Repo(files({"README.md"})),
        "lab/huge": Repo(everything, listed_size=10**17),
        "lab/gated": Repo(everything, refusal=(403, "GatedRepo")),
        "lab/hidden": Repo(everything, listed_refusal=(401, "GatedRepo")),
        "lab/broken": Repo(everything, listed_refusal=(503, "")),
        "lab/busy": Repo(everything, listed_refusal=(429, "")),
        "lab/denied": Repo(everything, refusal=(403, "")),
    }


@pytest.fixture(scope="module")
def served() -> Iterator[Hub]:
    with serve(repos()) as hub:
        yield hub


@pytest.fixture
def hub(served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub, with an empty cache."""
    served.fetched.clear()
    go_online(served.endpoint, tmp_path, monkeypatch)
    return served


def go_online(endpoint: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the package read from the environment when it was imported.
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(constants, "HF_HOME", str(cache))


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def refusal(repo: str, revision: str | None = None) -> str:
    with pytest.raises(ModelError) as raised:
        fetch(repo, revision=revision)
    message = str(raised.value)
    assert message.startswith(repo)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lab/model", True),
        ("lab/model@v1.0", True),
        ("lab/model@refs/pr/3", True),
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", True),
        ("model", False),
        ("./lab/model", False),
        ("/lab/model", False),
        ("a/b/c", False),
        ("lab/model/", False),
        ("lab/model@", False),
        ("models/merge.safetensors", False),
        ("models/merge.ckpt", False),
        ("lab/mo del", False),
        ("https://lab/model", False),
        ("", False),
    ],
)
def test_a_hub_id_is_told_from_a_path(text: str, expected: bool) -> None:
    assert is_hub_id(text) is expected


def test_a_folder_that_is_here_is_no_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_id("lab/model")
    assert is_hub_id("lab/other")


def test_what_an_export_reads_is_fetched_and_nothing_else(hub: Hub) -> None:
    lines: list[str] = []
    folder = fetch("lab/model", progress=lines.append)
    assert folder.name == COMMIT
    assert names(folder) == SMALL | PLAIN == set(hub.fetched)
    for name in PLAIN:
        assert (folder / name).read_bytes() == name.encode()
        assert any(f"lab/model: fetching {name}, 0.0 MB" in line for line in lines)


def test_a_second_fetch_takes_all_from_the_cache(hub: Hub) -> None:
    first = fetch("lab/model")
    hub.fetched.clear()
    lines: list[str] = []
    assert fetch("lab/model", progress=lines.append) == first
    assert hub.fetched == lines == []


def test_the_preferred_variant_is_fetched_and_not_the_plain_one(hub: Hub) -> None:
    assert names(fetch("lab/model", prefer="fp16")) == SMALL | HALF


def test_where_the_preferred_variant_is_not_there_the_plain_one_is_taken(hub: Hub) -> None:
    assert names(fetch("lab/model", prefer="bf16")) == SMALL | PLAIN


def test_where_there_is_one_variant_alone_it_is_taken(hub: Hub) -> None:
    assert names(fetch("lab/half")) == SMALL | HALF


@pytest.mark.parametrize(("prefer", "mark"), [(None, "model-0"), ("fp16", "model.fp16-0")])
def test_shards_come_with_their_index(hub: Hub, prefer: str | None, mark: str) -> None:
    unet = {name for name in names(fetch("lab/shards", prefer=prefer)) if name.startswith("unet/")}
    assert sum(mark in name for name in unet) == 2
    assert len(unet) == 4
    assert any(name.endswith(f"index.{prefer}.json" if prefer else "index.json") for name in unet)


def test_an_optimum_folder_comes_with_its_graphs(hub: Hub) -> None:
    found = names(fetch("lab/optimum"))
    assert {"unet/model.onnx", "unet/model.onnx_data", "vae_decoder/model.onnx"} <= found
    assert {"unet/config.json", "tokenizer/vocab.json"} <= found
    assert "unet/model.bin" not in found


def test_a_repository_of_one_network_is_a_folder(hub: Hub) -> None:
    expected = {"config.json", "diffusion_pytorch_model.safetensors"}
    assert names(fetch("lab/vae")) == expected


@pytest.mark.parametrize(
    ("prefer", "name"),
    [(None, "merge_v2.0.safetensors"), ("fp16", "merge_v2.0.fp16.safetensors")],
)
def test_a_repository_of_one_file_is_that_file(hub: Hub, prefer: str | None, name: str) -> None:
    file = fetch("lab/file", prefer=prefer)
    assert (file.name, file.read_bytes()) == (name, name.encode())
    assert hub.fetched == [name]


@pytest.mark.parametrize("revision", ["v1", COMMIT])
def test_a_revision_is_a_branch_a_tag_or_a_commit(hub: Hub, revision: str) -> None:
    assert fetch("lab/model", revision=revision) == fetch(f"lab/model@{revision}")


def test_two_revisions_are_refused() -> None:
    assert "differ: give one" in refusal("lab/model@v1", "v2")


@pytest.mark.parametrize("repo", ["lab/model", "lab/model@v1", f"lab/model@{COMMIT}", "lab/file"])
def test_offline_the_cache_is_used(hub: Hub, monkeypatch: pytest.MonkeyPatch, repo: str) -> None:
    fetched = fetch(repo)
    go_offline(monkeypatch)
    assert fetch(repo) == fetched


def test_a_hub_that_cannot_be_reached_is_replaced_by_the_cache(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = fetch("lab/model")
    go_online(closed_port(), tmp_path, monkeypatch)
    lines: list[str] = []
    assert fetch("lab/model", progress=lines.append) == fetched
    assert lines == ["the hub cannot be reached: using lab/model as it is in the cache"]


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_hub_that_cannot_be_reached_is_an_error_without_a_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_online(closed_port(), tmp_path, monkeypatch)
    assert "check the network" in refusal("lab/model")


def test_offline_an_incomplete_cache_is_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch("lab/model")
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    go_offline(monkeypatch)
    assert "in the cache has no safetensors weights in unet/" in refusal("lab/model")


def test_offline_what_is_not_cached_is_refused(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch("lab/model")
    go_offline(monkeypatch)
    for repo in ("lab/other", "lab/model@v2"):
        assert "HF_HUB_OFFLINE is set: unset it" in refusal(repo)


@pytest.mark.parametrize(
    ("repo", "message"),
    [
        ("lab/typo", "is neither on the hub nor a folder here: check the name; if it is private"),
        ("lab/model@v9", "does not exist: expected another branch"),
        ("lab/gated", "is gated: accept its terms on its page, log in with `hf auth login`"),
        ("lab/hidden", "is gated: accept its terms"),
        ("lab/denied", "is refused (HTTP 403): check the name, and log in"),
        ("lab/broken", "answers with HTTP 503: try again later"),
        ("lab/busy", "limits how often it is asked: wait"),
        ("lab/pickles", "vae/diffusion_pytorch_model.bin but no safetensors weights there"),
        ("lab/ckpt", "merge.ckpt but no safetensors weights there"),
        ("lab/bare", "has no safetensors weights in text_encoder/: expected"),
        ("lab/none", "has no safetensors weights: expected"),
        ("lab/flux", "is a FluxPipeline: expected a Stable Diffusion"),
        ("lab/merges", "holds 2 checkpoints, such as a.safetensors, b.safetensors"),
        ("lab/a--b", "is no model on the hub"),
    ],
)
def test_refusals_say_what_to_do(hub: Hub, repo: str, message: str) -> None:
    assert message in refusal(repo)
    assert not any(name.endswith((".safetensors", ".bin", ".ckpt")) for name in hub.fetched)


def test_an_index_that_is_none_is_refused(hub: Hub) -> None:
    with pytest.raises(ModelError, match="is not a JSON object"):
        fetch("lab/listed")


def test_a_text_that_is_no_hub_id_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'a/b/c' is no model on the hub: expected org/name"):
        fetch("a/b/c")


def test_an_answer_that_is_not_a_hubs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a hotel's network answers every request.
    page = Repo({"revision/main": b"<html>Log in</html>"})
    with serve({"models/x": page}) as hub:
        go_online(f"{hub.endpoint}/models/x/resolve/main/revision/main?", tmp_path, monkeypatch)
        assert "cannot be fetched" in refusal("lab/model")


def test_a_full_disk_is_seen_before_anything_is_fetched(hub: Hub) -> None:
    with pytest.raises(DiskFullError, match=r"needs \d{10}\.0 GB .* set HF_HOME"):
        fetch("lab/huge")
    assert hub.fetched == ["model_index.json"]


def test_a_disk_that_becomes_full_is_said(hub: Hub) -> None:
    def fill(line: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DiskFullError, match="does not fit in the hub's cache"):
        fetch("lab/model", progress=fill)


def test_a_cache_that_cannot_be_written_is_said(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "hub").write_text("in the way")
    assert "cannot be kept: " in refusal("lab/model")


def test_the_environment_is_the_hubs_own(served: Hub, tmp_path: Path) -> None:
    program = "import sys; from giffusion.export.hub.fetch import fetch; print(fetch(sys.argv[1]))"
    online = {"HF_ENDPOINT": served.endpoint, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    folders = [
        subprocess.run(
            [sys.executable, "-c", program, "lab/model"],
            env={**os.environ, "TRANSFORMERS_OFFLINE": "0", **environment},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for environment in (online, offline)
    ]
    assert folders[0] == folders[1]
    assert folders[0].startswith(str(tmp_path / "hub"))
