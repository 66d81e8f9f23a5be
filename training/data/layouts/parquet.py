"""Open parquet files: what they hold is copied once into memory-mapped files, named by their content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, load_dataset

from training.common.errors import UserError
from training.common.files import sha256_file
from training.data.array_store import cache_folder


def open_parquet(root: Path, files: list[str]) -> list[tuple[list[str], Dataset]]:
    """Open files, those of one schema together; each keeps the label names of its own.

    datasets would cast all of them to the first one's names, and so swap labels without a word.
    It also knows a file by its time alone: here content decides what is read again.

    Args:
        root: folder that the files are relative to.

    Returns:
        (files, their rows in the order of the files) for each schema.

    Raises:
        UserError: a file is damaged, or no parquet.
    """
    groups: dict[bytes, list[str]] = {}
    for name in files:
        schema, rows = _schema(root / name)
        if rows:  # datasets reads no file without a row
            groups.setdefault(schema, []).append(name)
    if not groups:
        raise UserError(f"dataset {root / files[0]} has no row: remove it, or write it again")
    return [(each, _open(root, each)) for each in groups.values()]


def own_label_names(path: Path, column: str) -> list[str] | None:
    """Read the names that one parquet file gives to its labels; None where it gives none."""
    features = Features.from_arrow_schema(pq.read_schema(path))
    feature = features.get(column)
    return feature.names if isinstance(feature, ClassLabel) else None


def _schema(path: Path) -> tuple[bytes, int]:
    """Read what the columns of a file are, with the names of labels, and how many rows it has."""
    try:
        metadata = pq.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
    except (OSError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"dataset {path} cannot be read: {reason}") from error
    labels = (schema.metadata or {}).get(b"huggingface", b"")
    return schema.remove_metadata().serialize().to_pybytes() + labels, metadata.num_rows


def _open(root: Path, files: list[str]) -> Dataset:
    paths = [str(root / name) for name in files]
    digest = hashlib.sha256("\n".join(sha256_file(Path(path)) for path in paths).encode())
    where = cache_folder() / "parquet" / digest.hexdigest()[:32]
    try:
        return load_dataset("parquet", data_files=paths, split="train", cache_dir=str(where))
    except (datasets.exceptions.DatasetGenerationError, ValueError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise UserError(f"dataset {paths[0]} cannot be read: {reason}") from error
