"""What the builders share: folders listed, names that TFDS keeps."""

import os

import pytest

from relvit_jax.data.builders import folders


def touch(path, text="x"):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)
  return path


def test_a_listing_has_the_images_and_counts_the_rest(tmp_path):
  for name in ("b/2.PNG", "b/1.jpeg", "b/deep/3.webp", "a/list.txt", "c.gif"):
    touch(tmp_path / name)
  touch(tmp_path / "b/.hidden.jpg")
  touch(tmp_path / ".git/4.jpg")
  listing = folders.list_images(tmp_path)
  assert listing.images == ("b/1.jpeg", "b/2.PNG", "b/deep/3.webp", "c.gif")
  assert listing.folders == ("a", "b", "b/deep")
  assert listing.ignored == 3
  assert listing.classes("b") == ("deep",)
  assert listing.below("b/deep") == ("b/deep/3.webp",)


def test_the_stamp_changes_with_names_sizes_and_times(tmp_path):
  path = touch(tmp_path / "a.png")
  os.utime(path, (1, 1))
  stamps = [folders.list_images(tmp_path).stamp]
  touch(path, "xy")
  os.utime(path, (1, 1))
  stamps.append(folders.list_images(tmp_path).stamp)
  os.utime(path, (2, 2))
  stamps.append(folders.list_images(tmp_path).stamp)
  path.rename(tmp_path / "b.png")
  stamps.append(folders.list_images(tmp_path).stamp)
  touch(tmp_path / "notes.txt")
  assert len(set(stamps)) == 4
  assert folders.list_images(tmp_path).stamp == stamps[-1]


def test_links_are_followed_but_not_in_circles(tmp_path):
  touch(tmp_path / "real" / "1.png")
  root = tmp_path / "set"
  root.mkdir()
  (root / "cat").symlink_to(tmp_path / "real")
  assert folders.list_images(root).images == ("cat/1.png",)
  (tmp_path / "real" / "again").symlink_to(root)
  with pytest.raises(folders.FolderError, match="again is a link to a folder"):
    folders.list_images(root)


def test_no_folder_is_named(tmp_path):
  with pytest.raises(folders.FolderError, match="nowhere is not a folder"):
    folders.list_images(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["", " cat", "cat ", "c\nat", "c\u2028at"])
def test_class_names_that_a_list_of_lines_would_change_are_refused(name):
  with pytest.raises(folders.FolderError, match="must not be empty, break"):
    folders.check_names(["dog", name])


def test_other_class_names_are_kept():
  assert folders.check_names(["a b", "ü", "3"]) == ("a b", "ü", "3")
