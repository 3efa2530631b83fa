"""Bundles that are complete, damaged, or in the way. No program is loaded, so any bytes serve as one."""

import json
import os

import pytest

from t5g2.runtime.bundle import Limits, manifest_text, new_folder, open_bundle, write_manifest
from t5g2.runtime.errors import T5g2Error, UsageError

FILES = {"text.pte": b"text program", "vision.pte": b"vision program", "tokenizer.json": b"{}"}


def fill(folder, **manifest):
    """A bundle in every respect but its programs."""
    folder.mkdir(exist_ok=True)
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    write_manifest(folder, {"backend": "native", "limits": {"max_source": 32, "max_target": 16, "max_rows": 4}} | manifest)
    return folder


@pytest.fixture
def bundle(tmp_path):
    return fill(tmp_path / "bundle")


def edit_manifest(bundle, **changes):
    """Changes the manifest and keeps its own hash right."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text()) | changes
    path.write_text(manifest_text(manifest))


def test_opens(bundle):
    opened = open_bundle(str(bundle))
    assert opened.limits == Limits(max_source=32, max_target=16, max_rows=4)
    assert opened.text_program == bundle / "text.pte"
    assert opened.vision_program == bundle / "vision.pte"
    assert opened.tokenizer == bundle / "tokenizer.json"


def test_without_vision_and_tokenizer(tmp_path):
    (tmp_path / "text.pte").write_bytes(b"text program")
    write_manifest(tmp_path, {"backend": "native"})
    opened = open_bundle(tmp_path)
    assert opened.vision_program is None and opened.tokenizer is None


def test_no_such_folder(tmp_path):
    with pytest.raises(T5g2Error, match="gone: no such bundle; give a folder made by t5g2-export"):
        open_bundle(tmp_path / "gone")


def test_a_file(bundle):
    with pytest.raises(T5g2Error, match=r"text\.pte: no such bundle"):
        open_bundle(bundle / "text.pte")


def test_not_a_bundle(tmp_path):
    with pytest.raises(T5g2Error, match=r"not a bundle \(no manifest\.json\)"):
        open_bundle(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_a_file(bundle, name):
    for at in range(len(FILES[name])):
        content = bytearray(FILES[name])
        content[at] ^= 1
        (bundle / name).write_bytes(content)
        with pytest.raises(T5g2Error, match=f"{name}: sha256 does not match .*export the bundle again"):
            open_bundle(bundle)


def test_a_flipped_bit_in_the_manifest(bundle):
    path = bundle / "manifest.json"
    original = path.read_bytes()
    for at in range(len(original)):
        content = bytearray(original)
        content[at] ^= 1
        path.write_bytes(content)
        with pytest.raises(T5g2Error, match=str(bundle)):
            open_bundle(bundle)
    path.write_bytes(original)
    open_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file(bundle, name):
    size = len(FILES[name])
    os.truncate(bundle / name, size - 1)
    with pytest.raises(T5g2Error, match=f"{name}: {size - 1} bytes where {size} are expected; export"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(T5g2Error, match=f"{name}: missing from the bundle; export"):
        open_bundle(bundle)


def test_a_newer_format(bundle):
    edit_manifest(bundle, format_version=4)
    with pytest.raises(T5g2Error, match="bundle format 4, and this t5g2 reads 3; upgrade t5g2 or export"):
        open_bundle(bundle)


def test_an_older_format(bundle):
    edit_manifest(bundle, format_version=2)
    with pytest.raises(T5g2Error, match="bundle format 2, and this t5g2 reads 3; export the bundle again"):
        open_bundle(bundle)


def test_an_altered_value(bundle):
    path = bundle / "manifest.json"
    path.write_text(path.read_text().replace('"max_source": 32', '"max_source": 64'))
    with pytest.raises(T5g2Error, match="does not match its own hash"):
        open_bundle(bundle)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"{}", b"\xff\xfe", b'{"format": "t5g2-bundle"}',
     b'{"format": "t5g2-bundle", "format_version": 1, "files": []}',
     b'{"format": "t5g2-bundle", "format_version": 1, "files": {"text.pte": {}}}'],
)  # fmt: skip
def test_a_damaged_manifest(bundle, content):
    (bundle / "manifest.json").write_bytes(content)
    with pytest.raises(T5g2Error, match=r"manifest\.json: not a bundle manifest, or a damaged one; export"):
        open_bundle(bundle)


def test_another_format(bundle):
    edit_manifest(bundle, format="something else")
    with pytest.raises(T5g2Error, match="not a bundle manifest"):
        open_bundle(bundle)


@pytest.mark.parametrize(("name", "least"), [("max_source", 2), ("max_target", 2), ("max_rows", 1)])
@pytest.mark.parametrize("below", [1, 2, 7])
def test_limits_out_of_range(name, least, below):
    value = least - below
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} {value}: must be at least {least}"):
        Limits(**{name: value})


# --- where a bundle is written ---


def test_takes_its_name_when_the_block_ends(tmp_path):
    target = tmp_path / "out" / "bundle"
    with new_folder(target, overwrite=False) as folder:
        fill(folder)
        assert not target.exists() and folder.parent == target.parent
    open_bundle(target)
    assert [f.name for f in target.parent.iterdir()] == ["bundle"]
    assert target.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("overwrite", [False, True])
def test_leaves_nothing_when_the_block_fails(tmp_path, error, overwrite):
    target = tmp_path / "bundle"
    if overwrite:
        fill(target, mark="old")
    with pytest.raises(error), new_folder(target, overwrite) as folder:
        fill(folder, mark="new")
        raise error
    assert list(tmp_path.iterdir()) == ([target] if overwrite else [])
    if overwrite:
        assert open_bundle(target).manifest["mark"] == "old"


def test_an_empty_folder_is_used(tmp_path):
    target = tmp_path / "bundle"
    target.mkdir()
    with new_folder(target, overwrite=False) as folder:
        fill(folder)
    open_bundle(target)
    assert list(tmp_path.iterdir()) == [target]


def test_an_existing_bundle_is_refused(bundle, tmp_path):
    with pytest.raises(T5g2Error, match="bundle: already exists; choose another --output, or --force"):
        with new_folder(bundle, overwrite=False):
            pytest.fail("started to work")
    open_bundle(bundle)
    assert list(tmp_path.iterdir()) == [bundle]


def test_force_replaces_a_bundle(bundle, tmp_path):
    (bundle / "left over").touch()
    with new_folder(bundle, overwrite=True) as folder:
        fill(folder, mark="new")
    assert open_bundle(bundle).manifest["mark"] == "new"
    assert not (bundle / "left over").exists() and list(tmp_path.iterdir()) == [bundle]


def test_force_replaces_a_damaged_bundle(bundle):
    (bundle / "manifest.json").write_text("{")
    with new_folder(bundle, overwrite=True) as folder:
        fill(folder)
    open_bundle(bundle)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_force_never_replaces_what_is_no_bundle(tmp_path, kind):
    target = tmp_path / "precious"
    file = target / "thesis.txt" if kind == "folder" else target
    file.parent.mkdir(exist_ok=True)
    file.write_text("years")
    with pytest.raises(T5g2Error, match="precious: exists and is not a bundle, so --force does not replace it"):
        with new_folder(target, overwrite=True):
            pytest.fail("started to work")
    assert file.read_text() == "years" and list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_appears_in_the_meantime_is_kept(tmp_path, overwrite):
    target = tmp_path / "bundle"
    with pytest.raises(T5g2Error, match="bundle: "), new_folder(target, overwrite):
        target.mkdir()
        (target / "thesis.txt").write_text("years")
    assert (target / "thesis.txt").read_text() == "years" and list(tmp_path.iterdir()) == [target]


def test_the_old_bundle_comes_back_when_the_swap_fails(bundle, tmp_path, monkeypatch):
    rename = type(bundle).rename

    def failing(self, target):
        if self.suffix == ".part":
            raise OSError("disk gone")
        return rename(self, target)

    monkeypatch.setattr(type(bundle), "rename", failing)
    with pytest.raises(OSError, match="disk gone"), new_folder(bundle, overwrite=True) as folder:
        fill(folder, mark="new")
    assert "mark" not in open_bundle(bundle).manifest and list(tmp_path.iterdir()) == [bundle]
