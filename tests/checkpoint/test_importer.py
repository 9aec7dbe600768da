"""Imports of published models: what their tables are, what a hub holds, and what samples say of them."""

import dataclasses
import pickle
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import zstandard
from huggingface_hub import errors

import marsjax
from marsjax.checkpoint import hub, importer, validation
from marsjax.checkpoint import safetensors as safetensors_layout
from marsjax.model.llama import OrderModel
from marsjax.tokens import bins
from tests import published
from tests.helpers import fixture_folder
from tests.published import SPEC

A, B = (f"order_info_tokenizer.{name}.weight" for name in ("emb_first", "emb_second"))


# --- tables of unknown use


def with_tables(folder: Path, truth: str, names: tuple[str, str] = (A, B), samples: int = 64) -> Path:
    """A published model with two more tables, and samples labelled by the variant `truth`."""
    base = published.random_params()
    first, second = (np.random.default_rng(i).standard_normal((11, SPEC.embed_dim), np.float32) for i in (1, 2))
    published.make(folder / "model", params=base, tensors=dict(zip(names, (first, second), strict=True)))
    params = base
    if truth != "ignore":
        one, two = (first, second) if truth == "sum" else (second, first)
        params = OrderModel(dataclasses.replace(SPEC, ratio_embeddings=True), {
            **base.weights(), "embedding.volume_ratio": one, "embedding.trade_ratio": two})
    features = published.random_features(count=samples)
    labels = published.greedy(params, features)
    published.write_samples(folder / "validation-samples", features, labels, labels)
    return folder / "model"


@pytest.mark.parametrize("truth", importer.VARIANTS)
def test_auto_finds_the_truth(tmp_path: Path, truth: str) -> None:
    found = importer.import_published(with_tables(tmp_path, truth))
    report = found.about["import"]
    assert report["ratio_embeddings"] == truth
    assert set(report["losses"]) == set(importer.VARIANTS)
    assert min(report["losses"], key=report["losses"].get) == truth
    assert found.model.spec.ratio_embeddings is (truth != "ignore")
    scores = validation.validate(marsjax.LoadedModel(found.model, {}, {}), tmp_path / "validation-samples")
    assert (scores.top1, scores.agreement) == (1.0, 1.0)
    assert scores.loss == pytest.approx(report["losses"][truth], abs=1e-6)


def test_the_other_choices(tmp_path: Path) -> None:
    folder = with_tables(tmp_path, "swapped")
    first, second = (np.random.default_rng(i).standard_normal((11, SPEC.embed_dim), np.float32) for i in (1, 2))
    by_samples = importer.import_published(folder, ratio_embeddings="sum")
    np.testing.assert_array_equal(by_samples.model.embedding.volume_ratio, second)
    shutil.rmtree(tmp_path / "validation-samples")
    for choice, expected in {"sum": (first, second), "swapped": (second, first), "ignore": (None, None)}.items():
        found = importer.import_published(folder, ratio_embeddings=choice)
        embedding = found.model.embedding
        for got, table in zip((embedding.volume_ratio, embedding.trade_ratio), expected, strict=True):
            assert (got is None and table is None) or np.array_equal(got, table)
        assert any("alphabet" in note for note in found.about["import"]["notes"]) is (choice == "sum")
    with pytest.raises(ValueError, match=r"emb_first.*--config\.validation=FOLDER.*ratio_embeddings=ignore"):
        importer.import_published(folder)
    with pytest.raises(ValueError, match="expected auto, ignore, sum, swapped, got 'both'"):
        importer.import_published(folder, ratio_embeddings="both")
    with pytest.raises(ValueError, match=r"has no two tables \[11, 8\]"):
        importer.import_published(published.make(tmp_path / "plain"), ratio_embeddings="sum")


def test_names_that_tell_the_tables_apart(tmp_path: Path) -> None:
    names = ("order_info_tokenizer.emb_trans_part.weight", "order_info_tokenizer.emb_volume_part.weight")
    folder = with_tables(tmp_path, "ignore", names)
    found = importer.import_published(folder, ratio_embeddings="sum")
    assert found.about["import"]["ratio_tables"] == list(reversed(names))
    assert found.about["import"]["losses"] == {}
    np.testing.assert_array_equal(found.model.embedding.trade_ratio,
                                  np.random.default_rng(1).standard_normal((11, SPEC.embed_dim), np.float32))


def test_one_table_three_or_elsewhere_are_unexpected(tmp_path: Path) -> None:
    table = np.zeros((11, SPEC.embed_dim), np.float32)
    for i, names in enumerate([(A,), (A, B, A + "c"), (A, "decoder.x.weight")]):
        folder = published.make(tmp_path / str(i), tensors=dict.fromkeys(names, table))
        with pytest.raises(ValueError, match=rf"{len(names)} tensors do not fit.*is unexpected"):
            safetensors_layout.read(folder)


# --- the hub


def test_one_repository_with_model_and_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = published.make(tmp_path / "repo")
    shutil.copytree(fixture_folder() / "converters_small", source / "converters")
    published.write_samples(source / "validation-samples", published.random_features(count=2), np.array([1, 2]))
    (source / "pytorch_model.bin").write_bytes(b"large")
    fake = published.FakeHub(tmp_path / "cache", {("microsoft/mars-order-model", "model"): source})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    found = hub.fetch("microsoft/mars-order-model", "main")
    assert fake.calls == [("microsoft/mars-order-model", "model", "main")]
    assert (found.revision, found.assets, found.samples) == (published.COMMIT, None, None)
    assert sorted(path.name for path in found.model.iterdir()) == ["config.json", "converters", "model.safetensors"]
    assert {path.stem for path in found.model.glob("converters/*")} == set(bins.NAMES)
    assert hub.fetch("microsoft/mars-order-model", samples=True).samples == found.model / "validation-samples"


def test_models_with_a_shared_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_folder = with_tables(tmp_path, "sum")
    assets = tmp_path / "assets"
    shutil.copytree(fixture_folder() / "converters_small", assets / "converters")
    shutil.copytree(tmp_path / "validation-samples", assets / "validation-samples")
    (assets / "stylized-facts").mkdir()
    (assets / "stylized-facts" / "large.zstd").write_bytes(b"large")
    fake = published.FakeHub(tmp_path / "cache", {("Don-Don/mars-order-2m", "model"): model_folder,
                                                  ("Don-Don/mars-order-assets", "dataset"): assets})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    found = importer.import_published("Don-Don/mars-order-2m", ratio_embeddings="ignore")
    assert [call[:2] for call in fake.calls] == list(fake.repositories)
    assert not (tmp_path / "cache" / "Don-Don--mars-order-assets" / "snapshots" / published.COMMIT /
                "stylized-facts").exists()
    assert not list((tmp_path / "cache").rglob("validation-samples"))
    assert found.about["revision"] == found.about["assets_revision"] == published.COMMIT
    assert found.about["assets"] == "Don-Don/mars-order-assets"
    assert set(found.about["sha256"]) == {"config.json", "model.safetensors", *(f"{name}.zstd" for name in bins.NAMES)}
    loaded = marsjax.load_order_model("Don-Don/mars-order-2m", revision="v1")  # fetches samples to choose by
    assert fake.calls[2] == ("Don-Don/mars-order-2m", "model", "v1")
    assert loaded.about["import"]["ratio_embeddings"] == "sum"
    assert set(loaded.converters) == set(bins.NAMES)


@pytest.mark.parametrize(
    ("error", "kind", "expected"),
    [(errors.GatedRepoError, PermissionError, "gated: accept its terms at https://huggingface.co/some/model"),
     (errors.RepositoryNotFoundError, FileNotFoundError, "no such repository, or a private one"),
     (errors.RevisionNotFoundError, FileNotFoundError, "no revision 'v9'"),
     (errors.LocalEntryNotFoundError, ConnectionError, "the hub cannot be reached"),
     (errors.OfflineModeIsEnabled, ConnectionError, "the hub cannot be reached"),
     (errors.HfHubHTTPError, ConnectionError, "the download failed"),
     (errors.HFValidationError, ValueError, "some/model"), (TimeoutError, ConnectionError, "the download failed")],
)
def test_errors_of_the_hub_are_one_line(monkeypatch: pytest.MonkeyPatch, error: type[Exception], kind: type[Exception],
                                        expected: str) -> None:
    def fails(*args: object, **kwargs: object) -> str:
        raised = error.__new__(error)  # some want a response to be made with
        raised.args = ("two\nlines",)
        raise raised

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    with pytest.raises(kind) as found:
        marsjax.load_order_model("some/model", revision="v9")
    assert expected in str(found.value)
    assert "\n" not in str(found.value)


def test_a_repository_without_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "config.json").write_text("{}")
    fake = published.FakeHub(tmp_path / "cache", {("some/model", "model"): tmp_path / "repo"})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake.file)
    with pytest.raises(FileNotFoundError, match=r"some/model: the repository has no file model\.safetensors"):
        hub.fetch("some/model")
    with pytest.raises(ValueError, match="expected a folder, or owner/name"):
        hub.fetch("../model")


# --- validation samples


def test_scores(tmp_path: Path) -> None:
    params = published.random_params()
    features = published.random_features(count=21)
    greedy = published.greedy(params, features)
    labels, told = greedy.copy(), greedy[:10].copy()
    labels[:7] = (labels[:7] + 1) % SPEC.tokens.classes
    told[:3] = 0
    published.write_samples(tmp_path, features, labels, told)
    loaded = marsjax.LoadedModel(params, {}, {})
    scores = validation.validate(loaded, tmp_path)
    logits = np.asarray(loaded.logits(features), np.float64)
    expected = np.log(np.exp(logits - logits.max(axis=-1, keepdims=True)).sum(axis=-1)) + logits.max(axis=-1)
    expected = float(np.mean(expected - logits[np.arange(21), labels]))
    assert scores.loss == pytest.approx(expected, rel=1e-5)
    assert (scores.samples, scores.top1) == (21, pytest.approx(14 / 21))
    assert (scores.compared, scores.agreement) == (10, pytest.approx(np.mean(told == greedy[:10])))
    assert validation.validate(loaded, tmp_path, max_samples=4).compared == 4
    published.write_samples(tmp_path, features[:2], labels[:2], name="valid-01")
    assert validation.validate(loaded, tmp_path).samples == 23


@pytest.mark.parametrize(
    ("text", "expected"),
    [("label,pred\n5,1\n6,2\n", [1, 2, -1]), (",label,greedy\n0,5,1\n1,6,2\n", [1, 2, -1]),
     ("5,1\n6,2\n7,3", [1, 2, 3]), ("pred,label\n1,5\n", [1, -1, -1]), ("label,pred\n", [-1] * 3), ("", [-1] * 3)],
)
def test_the_csv_beside_the_samples(tmp_path: Path, text: str, expected: list[int]) -> None:
    published.write_samples(tmp_path, published.random_features(count=3), np.array([5, 6, 7]))
    (tmp_path / "any.csv").write_text(text)
    assert validation.read(tmp_path, SPEC).published.tolist() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("label,pred\n4,1\n", r"row 1 has label 4 and prediction 1; expected label 5"),
     ("label,pred\n5,768\n", "a prediction below 768"), ("label,pred\n5\n", "expected a header, then rows"),
     ("label,pred\n5,x\n", "expected a header, then rows"), ("label,pred\n5,1e40\n", "expected a header, then rows"),
     ("label,pred\n5," + "9" * 30 + "\n", "expected a header, then rows")],
)
def test_a_csv_that_does_not_fit(tmp_path: Path, text: str, expected: str) -> None:
    published.write_samples(tmp_path, published.random_features(count=2), np.array([5, 6]))
    (tmp_path / "valid-00.output.csv").write_text(text)
    with pytest.raises(ValueError, match=r"valid-00\.output\.csv: .*" + expected):
        validation.read(tmp_path, SPEC)


def bad_samples() -> dict[str, tuple[object, str]]:
    good = published.random_features(count=1)[0]
    outside = good.copy()
    outside[3, 0] = 768
    label = np.array([1], np.int32)
    return {
        "no list": ({"a": 1}, "expected a list of samples, got a dict"),
        "none": ([], "expected a list of samples, got a list of 0"),
        "no pair": ([(good,)], "sample 0: expected a pair"), "no array": ([([1], label)], "sample 0: expected a pair"),
        "label": ([(good, np.array([768]))], "sample 0: expected a last label from 0 to 767"),
        "no label": ([(good, np.zeros(0, np.int32))], "sample 0: expected a last label"),
        "float label": ([(good, np.array([1.0]))], "sample 0: expected a last label"),
        "text label": ([(good, "1")], "sample 0: expected a last label"),
        "columns": ([(good[:, :14], label)], r"sample 0: expected features of one shape"),
        "one number": ([(np.array(1), label)], "sample 0: expected features of one shape"),
        "long": ([(np.concatenate([good, good]), label)], r"sample 0: expected features of one shape, \[1 to 16, 15\]"),
        "lengths": ([(good, label), (good[:5], label)], "sample 1: expected features of one shape"),
        "floats": ([(good.astype(np.float32), label)], "features: expected integers"),
        "turned": ([(good.T[:15, :15][:, :14], label)], "sample 0: expected features of one shape"),
        "outside": ([(outside, label)], r"features\[0, 3, 0\]: expected 0 to 767, got 768"),
    }


@pytest.mark.parametrize("case", bad_samples())
def test_samples_that_are_none(tmp_path: Path, case: str) -> None:
    record, expected = bad_samples()[case]
    (tmp_path / "x.zstd").write_bytes(zstandard.compress(pickle.dumps(record)))
    with pytest.raises(ValueError, match=r"x\.zstd: " + expected) as error:
        validation.read(tmp_path, SPEC)
    assert len(str(error.value)) < 500


def test_malicious_samples(tmp_path: Path) -> None:
    file = tmp_path / "x.zstd"
    cases = {
        "refused global 'pathlib": zstandard.compress(pickle.dumps([published.Trap(tmp_path / "trap")])),
        "more than 67108864 bytes when decompressed": zstandard.compress(bytes(2**27)),
        "is cut off": zstandard.compress(pickle.dumps([1] * 1000))[:-5], "not a zstd file": b"PK\3\4 zip"}
    for expected, data in cases.items():
        file.write_bytes(data)
        with pytest.raises(ValueError, match=expected):
            validation.read(tmp_path, SPEC)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zstd"]
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"no \.zstd file"):
        validation.read(tmp_path, SPEC)
