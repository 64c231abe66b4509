"""Cuts from shared libraries what no loader reads: symbol tables and section headers behind the last loaded segment.

What `sstrip` does, in the interpreter that the base image has anyway (it has no binutils). A loader goes by the program headers
alone; `dlsym` by the dynamic symbols, which are loaded. Profilers lose the names of static functions.

Source of the format: System V ABI, ELF-64 object file format (Ehdr: e_phoff at 32, e_shoff at 40, e_phentsize at 54; Phdr:
p_offset at 8, p_filesz at 32).
"""

import struct
import sys
from pathlib import Path

_HEADER = 64
_CLASS_64 = b"\x7fELF\x02"


def loaded_end(image: bytes) -> int:
    """Where the last segment ends in the file of which `image` is the beginning, program headers included."""
    start, (size, count) = struct.unpack_from("<Q", image, 32)[0], struct.unpack_from("<HH", image, 54)
    segments = [struct.unpack_from("<8xQ16xQ", image, start + number * size) for number in range(count)]
    return max([start + size * count, *(offset + length for offset, length in segments)])


def strip(path: Path) -> int:
    """Cut one library; the bytes that were saved, 0 for what is no 64-bit ELF file."""
    with path.open("r+b") as file:
        head = file.read(1 << 16)
        if len(head) < _HEADER or not head.startswith(_CLASS_64):
            return 0
        end, before = loaded_end(head), path.stat().st_size
        if end >= before:
            return 0
        file.seek(40)
        file.write(bytes(8))  # e_shoff
        file.seek(60)
        file.write(bytes(4))  # e_shnum, e_shstrndx
        file.truncate(end)
        return before - end


if __name__ == "__main__":
    saved = sum(strip(path) for path in Path(sys.argv[1]).rglob("*.so*") if path.is_file() and not path.is_symlink())
    sys.stdout.write(f"stripped {saved / 1e6:.0f} MB\n")
