"""A directory of class folders: ``data_dir/<class>/*.png``, or ``data_dir/train/<class>/*.png`` and so on."""

from pathlib import Path

import numpy as np

from robust_saliency.data import images

SPLIT_FOLDERS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}


def folders(data_dir: str) -> dict[str, Path]:
    """Where each split lies: ``{'train': ...}``, with 'validation' and 'test' only where they have a folder."""
    if not data_dir:
        raise ValueError("data.name 'folder' needs data.data_dir: the directory that holds one folder a class.")
    root = Path(data_dir).expanduser()
    if not root.is_dir():
        raise ValueError(f"data.data_dir {root} is not a directory.")
    found = {
        split: root / name
        for split, names in SPLIT_FOLDERS.items()
        for name in reversed(names)
        if (root / name).is_dir() and _class_folders(root / name)
    }
    if not found:
        return {"train": root}
    if "train" not in found:
        raise ValueError(f"{root} has folders for {', '.join(found)} but no folder train with one folder a class.")
    return found


class FolderSource:
    """One split of a directory as a ``Source``; classes are the folders, sorted, of ``class_names`` where given."""

    has_mask = False
    groups = None

    def __init__(self, root: Path, *, image_size: int, channels: int, class_names: tuple[str, ...] = ()):
        self.where = str(root)
        names = [folder.name for folder in _class_folders(root)]
        self.class_names = class_names or tuple(names)
        unknown = sorted(set(names) - set(self.class_names))
        if unknown:
            raise ValueError(f"{root}: the class folders {', '.join(unknown)} are not among the training classes.")
        per_class = [images.image_files(root / name) if name in names else [] for name in self.class_names]
        empty = [name for name, files in zip(self.class_names, per_class, strict=True) if name in names and not files]
        if empty:
            ends = ", ".join(images.EXTENSIONS)
            raise ValueError(f"{root}: no image in the class folder {empty[0]!r}: looked for files that end in {ends}.")
        self.paths = [path for files in per_class for path in files]
        if not self.paths:
            raise ValueError(f"{root} holds no class folder with images in it.")
        self.labels = np.repeat(np.arange(len(per_class)), [len(files) for files in per_class]).astype(np.int32)
        self.image_shape = self._shape(image_size, channels)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        image = images.read_files([self.paths[row] for row in rows], self.image_shape)
        return {"image": image, "label": self.labels[rows]}

    def _shape(self, image_size: int, channels: int) -> tuple[int, int, int]:
        if image_size and channels:
            return image_size, image_size, channels
        headers = [images.header(path) for path in self.paths]
        first = headers[0][0]
        other = next((k for k, (size, _) in enumerate(headers) if size != first), None)
        if other is not None and not image_size:
            raise ValueError(
                f"{self.where}: image sizes differ ({self.paths[0].name} is {first[0]} x {first[1]}, "
                f"{self.paths[other].name} {headers[other][0][0]} x {headers[other][0][1]}); set data.image_size."
            )
        height, width = (image_size, image_size) if image_size else first
        return height, width, channels or max(stored for _, stored in headers)


def _class_folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
