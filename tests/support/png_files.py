"""PNG files that Pillow cannot write."""

import struct
import zlib


def grey_png(path, ids, bits, colour=0, channels=1):
    """Write a PNG of a given depth by hand, grey or of another colour type: Pillow cannot."""
    height, width = ids.shape[0], ids.shape[1] // channels
    rows = b""
    for row in ids:
        packed = "".join(f"{value:0{bits}b}" for value in row)
        packed += "0" * (-len(packed) % 8)
        rows += b"\0" + int(packed, 2).to_bytes(len(packed) // 8, "big")

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
