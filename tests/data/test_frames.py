from pathlib import Path

import pytest

from meta_ood.data.frames import Frame, read_frames, read_label_names, write_frames, write_label_names


def example(root: Path) -> list[Frame]:
    folder = root / "data/prepare/x"
    return [
        Frame(
            "a", root / "data/raw/a.png", "0" * 32, folder / "targets/a.png", "scene, one", folder / "label_ids/a.png"
        ),
        Frame("b", Path("/elsewhere/b.png"), "1" * 32, folder / "targets/b.png", ""),
    ]


def test_round_trip_survives_a_moved_checkout(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "data/prepare/x").mkdir(parents=True)
    write_frames(old / "data/prepare/x", example(old), root=old)
    old.rename(new)
    assert read_frames(new / "data/prepare/x", root=new) == example(new)


def test_a_linked_raw_root_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    root = tmp_path / "repo"
    folder = root / "data/prepare/x"
    folder.mkdir(parents=True)
    (root / "data/raw").symlink_to(tmp_path / "real")
    frame = Frame("a", root / "data/raw/a.png", "0" * 32, folder / "targets/a.png", "")
    write_frames(folder, [frame], root=root)
    assert "data/raw/a.png" in (folder / "frames.csv").read_text()


def test_files_of_before_have_no_label_ids(tmp_path: Path) -> None:
    text = "image_id,image,image_md5,target,scene\na,a.png,0,targets/a.png,s\n"
    (tmp_path / "frames.csv").write_text(text)
    expected = Frame("a", tmp_path / "a.png", "0", tmp_path / "targets/a.png", "s")
    assert read_frames(tmp_path, tmp_path) == [expected]


def test_label_names_come_back(tmp_path: Path) -> None:
    assert read_label_names(tmp_path) == {}
    names = {9: "Cardboard box 1", 2: 'Crate, "black"'}
    write_label_names(tmp_path, names)
    assert read_label_names(tmp_path) == names
    write_label_names(tmp_path, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "id,name\n2,a\n", "label_id,name\ntwo,a\n"])
def test_damaged_label_names_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=r"labels\.csv: expected (the header label_id,name|integers)"):
        read_label_names(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the header"),
        ("a,b\n", "expected the header"),
        ("image_id,image,image_md5,target,scene\n", "no frame"),
        ("image_id,image,image_md5,target,scene\na,b\n", "line 2: expected 5 columns"),
        ("image_id,image,image_md5,target,scene\na,b,c,d,e\na,b,c,d,e\n", "occurs twice"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "frames.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"frames\.csv.*{message}"):
        read_frames(tmp_path, tmp_path)


def test_an_unprepared_dataset_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run `prepare`"):
        read_frames(tmp_path, tmp_path)
