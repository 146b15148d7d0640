"""What bench/quantize reads of GGUF files: where tensors lie, and the steps of their codes."""
import struct

import numpy as np

SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of a value
STRING, ARRAY = 8, 9
BLOCKS = {0: (1, 4), 1: (1, 2), 30: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 12: (256, 144), 13: (256, 176),
          14: (256, 210)}  # values, bytes
F32, F16, BF16, Q8_0, Q4_K, Q5_K, Q6_K = 0, 1, 30, 8, 12, 13, 14


class File:
    def __init__(self, path):
        self.data = np.memmap(path, np.uint8, "r")
        self.at = 8
        n_tensors, n_keys = self._take("<QQ")
        alignment = 32
        for _ in range(n_keys):
            name, kind = self._text(), self._take("<I")[0]
            if name == b"general.alignment":
                alignment = struct.unpack_from("<I", self.data, self.at)[0]
            self._skip(kind)
        self.tensors = {}
        for _ in range(n_tensors):
            name = self._text().decode()
            dims = self._take(f"<{self._take('<I')[0]}Q")
            self.tensors[name] = (*self._take("<IQ"), dims)
        self.start = -(-self.at // alignment) * alignment

    def _take(self, form):
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def _text(self):
        n, = self._take("<Q")
        self.at += n
        return self.data[self.at - n:self.at].tobytes()

    def _skip(self, kind):
        if kind == STRING:
            self._text()
        elif kind == ARRAY:
            of, n = self._take("<IQ")
            if of == STRING:
                for _ in range(n):
                    self._text()
            else:
                self.at += n * SCALARS[of]
        else:
            self.at += SCALARS[kind]

    def where(self, name):
        """The first byte of a tensor in the file, and how many there are."""
        kind, offset, dims = self.tensors[name]
        values, size = BLOCKS[kind]
        return self.start + offset, int(np.prod(dims)) // values * size

    def values(self, name):
        """Of an F32 tensor."""
        at, n = self.where(name)
        assert self.tensors[name][0] == F32, name
        return self.data[at:at + n].view("<f4")

    def steps(self, name):
        """How far the values of each block of a tensor lie apart, [blocks], and values a block; None: it has no codes."""
        kind = self.tensors[name][0]
        if kind in (F32, F16, BF16):
            return None
        at, n = self.where(name)
        n_values, n_bytes = BLOCKS[kind]
        blocks = self.data[at:at + n].reshape(-1, n_bytes)

        def f16(first):
            return np.ascontiguousarray(blocks[:, first:first + 2]).view("<f2").astype(np.float32)

        if kind == Q6_K:
            steps = f16(208) * blocks[:, 192:208].view(np.int8).astype(np.float32)
            return np.abs(steps).reshape(-1), 16
        if kind in (Q4_K, Q5_K):
            packed = blocks[:, 4:16].astype(np.int32)
            scales = np.concatenate([packed[:, :4] & 63, packed[:, 8:] & 15 | packed[:, :4] >> 6 << 4], axis=1)
            return np.abs(f16(0) * scales).reshape(-1), 32
        return np.abs(f16(0)).reshape(-1), n_values
