"""Listings of whole folders: what they hold, and what is none."""

import pytest

from fit_jax.sums import Sum, dump_listing, first_unlike, list_folder, parse_listing


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_bytes(b"abc")
    (tmp_path / "d").write_bytes(b"")
    return tmp_path


def test_a_listing_is_read_back(folder):
    listing = list_folder(folder)
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert listing["a/b/c"] == Sum(3, abc)
    assert list(listing) == ["a/b/c", "d"]
    assert parse_listing(dump_listing(listing)) == parse_listing(dump_listing(listing).encode()) == listing
    assert list(list_folder(folder, lambda name: name == "d")) == ["d"]


@pytest.mark.parametrize("name", ["a/b/c", "d"])
@pytest.mark.parametrize("change", [None, b"abd", b"abcd"])
def test_what_is_gone_or_other_is_told(folder, name, change):
    listing = list_folder(folder)
    path = folder / name
    path.unlink() if change is None else path.write_bytes(change)
    assert first_unlike(folder, listing, listing) == name
    assert first_unlike(folder, listing, listing.keys() - {name}) is None


def test_what_is_there_besides_is_no_difference(folder):
    listing = list_folder(folder)
    (folder / ".nfs1").touch()
    assert first_unlike(folder, listing, listing) is None


@pytest.mark.parametrize("text", ["", "[]", "1", "[" * 9999, '{"a": 1}', '{"a": [1]}', '{"a": ["1", "b"]}'])
@pytest.mark.parametrize("kind", [str, str.encode])
def test_what_is_no_listing_is_told(text, kind):
    with pytest.raises(ValueError):
        parse_listing(kind(text))


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_a_name_that_leads_out_is_refused(name):
    with pytest.raises(ValueError, match="leads out"):
        parse_listing(dump_listing({name: Sum(1, "")}))
