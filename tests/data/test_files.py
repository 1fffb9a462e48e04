"""Reading text, JSON and CSV files: whatever is wrong, the file is named."""

import pytest

from meta_ood.data.files import read_csv, read_json, read_text


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_text, b"\xff\xfe", "not a text file in UTF-8"),
        (read_json, b"\xff\xfe", "not a text file in UTF-8"),
        (read_json, b'{"a": 1', "not a JSON file"),
        (read_json, b'{"a": NaN}', "NaN is not a number"),
        (read_json, b"[" * 100_000, "not a JSON file"),
        (read_csv, b"a,b\n1,\xe4\n", "not a text file in UTF-8"),
        (read_csv, b'a,b\n"1,2\n', "line 2: expected 2 columns, got 1"),
        (read_csv, b"a,b\n" + b"1" * 200_000 + b",2\n", "not a CSV file: field larger"),
        (read_csv, b"a,b\n1,2,3\n", "line 2: expected 2 columns, got 3"),
        (read_csv, b"", "expected the header a,b"),
        (read_csv, b"a,c\n", "expected the header a,b"),
    ],
)
def test_what_cannot_be_read_names_the_file(tmp_path, read, content, message):
    path = tmp_path / "table"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"table(:|, ).*{message}|table, {message}"):
        read(path, ["a", "b"]) if read is read_csv else read(path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "missing", ["a"]) if read is read_csv else read(tmp_path / "missing")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"\xef\xbb\xbfa,b\n1,2\n")
    assert read_csv(path, ["a", "b"]) == [{"a": "1", "b": "2"}]
    path.write_bytes(b"\xef\xbb\xbf[1.5]")
    assert read_json(path) == [1.5]
