"""`check_file`: whether a checkpoint on disk is complete and undamaged, before anything in it is read as a pickle.

`torch.save` writes a zip archive with a CRC-32 of each entry, and `torch.load` ignores it: a flipped bit in a weight
loads as another number. Needs no torch.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
from pathlib import Path

from .errors import ConfigError
from .printable import to_printable

_CHUNK = 1 << 20
# What a file begins with that torch wrote before 1.6: its magic number, pickled.
_LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
# What torch takes a file for an archive by; else it reads the format of before 1.6.
_ARCHIVE_START = b"PK\x03\x04"
_ENTRY_HEADER = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 0x1
_DIRECTORY = 0x10
"""In an entry's attributes; torch would read such an entry as uninitialized memory."""
_NOT_COPIED_WHOLE = "Copy or download it again, or use another checkpoint"


def check_file(path: Path, *, how_to_skip: str) -> None:
    """Check that a file is what `torch.save` has written: reads it once, in chunks.

    Entries are stored as they are, one after the other, so no more is read than the file is long.

    Args:
        path: a local file.
        how_to_skip: what to type to load a file that has no checksums.

    Raises:
        ConfigError: it is no regular file, no zip archive (among these are files from torch before 1.6, which have no
            checksums), truncated, or an entry is damaged, compressed or shares its bytes with another one.
    """
    name = to_printable(str(path))
    size = check_regular(path)
    with open(path, "rb") as file:
        start = file.read(len(_LEGACY_START))
    if start == _LEGACY_START:
        raise ConfigError(
            f"{name}: the file is in the format of torch before 1.6, which has no checksums. Save it again with "
            f"torch.save; or to load it unchecked, {how_to_skip}"
        )
    if not start.startswith(_ARCHIVE_START):
        raise ConfigError(f"{name}: this is no checkpoint: torch.save writes a zip archive")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_layout(archive, size)
            _check_checksums(archive, how_to_skip)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    except Exception as error:  # zipfile raises anything from struct.error to NotImplementedError for damaged headers
        raise ConfigError(
            f"{name}: the file is truncated or damaged: {to_printable(str(error))}. {_NOT_COPIED_WHOLE}"
        ) from None


def is_archive(path: Path) -> bool:
    """Whether torch reads a file as a zip archive; the format of before 1.6 is another one."""
    with open(path, "rb") as file:
        return file.read(len(_ARCHIVE_START)) == _ARCHIVE_START


def check_regular(path: Path) -> int:
    """The size in bytes of a regular file; anything else is refused before it is opened, as a FIFO may block.

    Raises:
        ConfigError: there is no such file, or it is a folder, a pipe, a device or empty.
    """
    name = to_printable(str(path))
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise ConfigError(f"{name}: there is no such file") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}: the file cannot be read: {to_printable(str(error))}") from None
    if stat.S_ISDIR(status.st_mode):
        raise ConfigError(f"{name}: this is a folder, not a checkpoint file")
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{name}: this is no regular file, but a pipe, socket or device")
    if not status.st_size:
        raise ConfigError(f"{name}: the file is empty. {_NOT_COPIED_WHOLE}")
    return status.st_size


def _check_layout(archive: zipfile.ZipFile, size: int) -> None:
    """Check that the entries are stored uncompressed, under names of their own, and in bytes of their own."""
    entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
    if len({entry.filename for entry in entries}) < len(entries):
        raise ConfigError("two entries of the archive have one name")
    # zipfile finds an archive after other bytes too, where torch would read the other bytes.
    if not entries or entries[0].header_offset != 0:
        raise ConfigError(f"the file does not begin with the first entry of the archive. {_NOT_COPIED_WHOLE}")
    end = 0
    for entry in entries:
        name = to_printable(entry.filename)
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED:
            raise ConfigError(f"{name} is compressed or encrypted in the archive, which torch.save never does")
        if entry.external_attr & _DIRECTORY or entry.is_dir():
            raise ConfigError(f"{name} is marked as a folder in the archive. {_NOT_COPIED_WHOLE}")
        data = entry.header_offset + _ENTRY_HEADER.size
        if entry.compress_size != entry.file_size or entry.header_offset < end or data + entry.file_size > size:
            raise ConfigError(f"the size or position of {name} in the archive is wrong. {_NOT_COPIED_WHOLE}")
        end = data + entry.file_size
    if end > archive.start_dir:
        raise ConfigError(f"the entries do not fit into the archive. {_NOT_COPIED_WHOLE}")


def _check_checksums(archive: zipfile.ZipFile, how_to_skip: str) -> None:
    for entry in archive.infolist():
        try:
            with archive.open(entry) as content:
                while content.read(_CHUNK):
                    pass
        except Exception as error:
            if not str(error).startswith("Bad CRC-32"):
                raise
            raise ConfigError(
                f"the file is damaged: {to_printable(entry.filename)} does not have the checksum that it was saved "
                f"with. {_NOT_COPIED_WHOLE}. If it was saved under torch.serialization.set_crc32_options(False), "
                f"{how_to_skip}"
            ) from None
