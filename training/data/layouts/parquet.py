"""Open parquet files: what they hold is copied once into memory-mapped files, named by their content."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features

from training.common.errors import UserError
from training.common.files import sha256_file
from training.data.array_store import cache_folder

BATCH_BYTES = 64 << 20  # of rows that are copied at once


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
    paths = [root / name for name in files]
    digest = hashlib.sha256("\n".join(map(sha256_file, paths)).encode()).hexdigest()
    copied = cache_folder() / "parquet" / f"{digest[:32]}.arrow"
    try:
        if not copied.is_file():
            _copy(paths, copied)
        return Dataset.from_file(str(copied))
    # Arrow's own errors are of these kinds; NotImplementedError is a column type that it cannot cast.
    except (ValueError, TypeError, NotImplementedError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"dataset {paths[0]} cannot be read: {reason}") from error
    except OSError as error:
        if error.errno is None:  # of a damaged page
            raise UserError(
                f"dataset {paths[0]} cannot be read: {' '.join(str(error).split())}"
            ) from error
        raise UserError(
            f"dataset {paths[0]} cannot be copied to {copied.parent}: {error.strerror}; free space, or choose "
            "another place with HF_DATASETS_CACHE"
        ) from error


def _copy(paths: list[Path], target: Path) -> None:
    """Write the rows of files of one schema where they can be mapped into memory, whole or not at all.

    A part is in memory at a time, also of a file that is all one row group, as pandas writes it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file, contextlib.ExitStack() as stack:
            writer = None
            for path in paths:
                source = stack.enter_context(
                    pq.ParquetFile(path, memory_map=True, pre_buffer=False)
                )
                for batch in source.iter_batches(batch_size=_batch_size(source.metadata)):
                    table = _plain(pa.Table.from_batches([batch]))
                    if writer is None:
                        writer = stack.enter_context(pa.ipc.new_stream(file, table.schema))
                    writer.write_table(table)
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _batch_size(metadata: pq.FileMetaData) -> int:
    groups = (metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    row = max(sum(groups) // max(metadata.num_rows, 1), 1)
    return min(max(BATCH_BYTES // row, 1), 1000)


def _plain(table: pa.Table) -> pa.Table:
    """Write out the words of columns that keep each word once, as pandas' categories do."""
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            words = table.column(i).cast(field.type.value_type)
            table = table.set_column(i, field.with_type(field.type.value_type), words)
    return table
