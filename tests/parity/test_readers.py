"""What other packages' own readers return of the files that we write, and we of theirs, pixel by pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scoremodel.data.exchange import fitted, read_images, write_images
from scoremodel.data.sources.base import load_source
from scoremodel.data.sources.digits import load_digits

pytestmark = pytest.mark.parity

DRAW = np.random.default_rng(0)
COUNT = 1003  # more than one of EDM's folders
COLOUR = DRAW.integers(0, 256, (COUNT, 3, 6, 5), dtype=np.uint8)
DIGITS = load_digits().x[:COUNT]


def seen(x: NDArray[np.uint8], levels: int) -> NDArray[np.uint8]:
    """Return what a reader of RGB with 256 levels should see: x spread over 0 … 255, repeated to three."""
    spread = np.round(x.astype(float) * 255 / (levels - 1)).astype(np.uint8)
    return spread if x.shape[1] == 3 else spread.repeat(3, 1)


@pytest.fixture(params=[(COLOUR, 256), (DIGITS, 17)], ids=["colour", "digits"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, NDArray[np.uint8]]:
    """Return a folder that holds a set as each form, and what its readers should see."""
    x, levels = request.param
    write_images(tmp_path / "folder", x, form="folder", levels=levels)
    write_images(tmp_path / "a.zip", x, form="zip", levels=levels)
    write_images(tmp_path / "a.npz", x, form="npz", levels=levels)
    return tmp_path, seen(x, levels)


def clean_fid_s(path: Path, monkeypatch: pytest.MonkeyPatch) -> NDArray[Any]:
    """Return what reaches the network in clean-fid's own `get_folder_features`, without resizing."""
    from cleanfid import fid

    batches = []

    def keep(batch: Any) -> Any:
        batches.append(batch.numpy().copy())
        return batch.flatten(1)

    monkeypatch.setattr(fid, "tqdm", lambda loader, **_: loader)
    fid.get_folder_features(
        str(path), model=keep, num_workers=0, batch_size=64, device="cpu", mode="clean",
        custom_fn_resize=lambda image: image, verbose=False,
    )  # fmt: skip
    return np.concatenate(batches)


@pytest.mark.parametrize("form", ["folder", "a.zip"])
def test_clean_fid_reads_what_was_written(
    form: str, written: tuple[Path, NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cleanfid")
    folder, expected = written
    found = clean_fid_s(folder / form, monkeypatch)
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, found.round(), strict=True)
    pixels = found.astype(np.uint8)
    if form == "a.zip":  # whose members clean-fid takes in the order of a set
        assert sorted(map(bytes, pixels)) == sorted(map(bytes, expected))
    else:
        np.testing.assert_array_equal(pixels, expected)


def test_pytorch_fid_reads_what_was_written(written: tuple[Path, NDArray[np.uint8]]) -> None:
    """It looks into one folder only, so each of EDM's by itself."""
    score = pytest.importorskip("pytorch_fid.fid_score")
    import torch
    from torchvision.transforms.functional import to_tensor

    folder, expected = written
    found = []

    class Keep(torch.nn.Module):
        def forward(self, batch: Any) -> Any:
            found.append(batch.numpy().copy())
            return [batch.mean(dim=(2, 3), keepdim=True)]

    for part in ("000000", "001000"):
        # As compute_statistics_of_path does.
        files = sorted((folder / "folder" / part).glob("*.png"))
        score.get_activations(files, Keep(), dims=3, num_workers=0)
    right = np.stack([to_tensor(one.transpose(1, 2, 0)).numpy() for one in expected])
    np.testing.assert_array_equal(np.concatenate(found), right)


def test_torch_fidelity_reads_what_was_written(written: tuple[Path, NDArray[np.uint8]]) -> None:
    theirs = pytest.importorskip("torch_fidelity.utils")
    folder, expected = written
    descriptor = theirs.prepare_input_from_id(
        1, input1=str(folder / "folder"), samples_find_deep=True, verbose=False
    )
    found = np.stack([one.numpy() for one in descriptor])
    np.testing.assert_array_equal(found, expected, strict=True)


def test_the_npz_is_what_adm_s_reader_takes(written: tuple[Path, NDArray[np.uint8]]) -> None:
    """ADM's evaluator reads `arr_0` in NHWC and wants three channels; numpy alone is its reader."""
    folder, expected = written
    with np.load(folder / "a.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["arr_0"], expected.transpose(0, 2, 3, 1), strict=True)


def test_what_other_writers_of_samples_write_is_read(tmp_path: Path) -> None:
    """Two other writers of samples: `torchvision.utils.save_image`, and Pillow from `(x + 1) * 127.5`."""
    import torch
    from PIL import Image
    from torchvision.utils import save_image

    x = torch.from_numpy(DIGITS[:300]).float() / 16
    for name in ("torchvision", "pillow"):
        (tmp_path / name).mkdir()
    for number, one in enumerate(x):
        save_image(one, tmp_path / "torchvision" / f"{number:05d}.png")
        truncated = ((one * 2 - 1 + 1) * 127.5).clamp(0, 255).to(torch.uint8)
        Image.fromarray(truncated[0].numpy()).save(tmp_path / "pillow" / f"{number:05d}.png")
    for name in ("torchvision", "pillow"):
        found = fitted(read_images(tmp_path / name), (1, 8, 8), 17)
        np.testing.assert_array_equal(found.x, DIGITS[:300], err_msg=name)


@pytest.mark.parametrize("form", ["save_to_disk", "splits", "parquet"])
def test_what_datasets_writes_is_read(form: str, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    from PIL import Image

    names = ["ant", "bee", "cat"]
    labels = DRAW.integers(0, 3, COUNT)
    features = datasets.Features(
        {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=names)}
    )
    pictures = [Image.fromarray(one.transpose(1, 2, 0)) for one in COLOUR]
    info = datasets.DatasetInfo(license="cc0-1.0", features=features)
    whole = datasets.Dataset.from_dict(
        {"picture": pictures, "kind": labels.tolist()}, features=features, info=info
    )
    path = tmp_path / "set"
    said: dict[str, Any] = {"kind": "huggingface", "path": str(path)}
    if form == "save_to_disk":
        whole.save_to_disk(path, num_shards=3)
    elif form == "splits":
        parts = {"train": whole.select(range(900)), "test": whole.select(range(900, COUNT))}
        datasets.DatasetDict(parts).save_to_disk(path)
        said["held_out"] = "test"
    else:
        path.mkdir()
        whole.to_parquet(path / "train-00000-of-00001.parquet")
    raw = load_source(said)
    np.testing.assert_array_equal(raw.x, COLOUR)
    np.testing.assert_array_equal(raw.labels, labels)
    assert raw.classes == names
    assert (raw.held_out is not None) is (form == "splits")
    if form != "parquet":
        assert raw.licence == "cc0-1.0"
