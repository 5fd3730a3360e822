"""The image of the Pods' sandbox, made on the spot.

Every Pod needs one process that holds its namespaces open. The usual image for it lives in a public
registry, which many hosts cannot reach; the program is so small that it is easier made than fetched.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import struct
import tarfile

from tandem.errors import Unsupported

IMAGE = "localhost/tandem/pause:1"
"""The name under which the image is kept. Nothing serves it: it must be imported."""

_LOAD_ADDRESS = 0x400000
_HEADER_BYTES = 64 + 56  # ELF header and one program header

# Ignoring SIGCHLD makes the kernel reap by itself what is orphaned in a Pod whose containers share
# their process namespace. Every other signal keeps its default: without a handler it does not reach
# the first process of a namespace, and the runtime ends a sandbox with SIGKILL.
_X86_64 = bytes.fromhex(
    "b80d000000"  # mov eax, 13            rt_sigaction(
    "bf11000000"  # mov edi, 17              SIGCHLD,
    "488d3513000000"  # lea rsi, [rip+19]        &action,
    "31d2"  # xor edx, edx             NULL,
    "41ba08000000"  # mov r10d, 8              8)
    "0f05"  # syscall
    "b822000000"  # mov eax, 34            forever: pause()
    "0f05"  # syscall
    "ebf7"  # jmp forever
) + struct.pack("<4Q", 1, 0, 0, 0)  # struct kernel_sigaction {SIG_IGN, 0, NULL, 0}


def program() -> bytes:
    """A static ELF executable that sleeps for ever. Raises ``Unsupported`` on other processors."""
    if (machine := platform.machine()) != "x86_64":
        raise Unsupported(
            f"no built-in sandbox image for {machine}",
            hint="name one that your registry has: sandbox_image in /etc/tandem/config.yaml",
        )
    size = _HEADER_BYTES + len(_X86_64)
    elf = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",  # 64 bit, little-endian, version 1
        2,  # executable
        62,  # x86-64
        1,
        _LOAD_ADDRESS + _HEADER_BYTES,  # entry
        64,  # program headers follow this header
        0,
        0,
        64,
        56,
        1,  # one program header
        0,
        0,
        0,
    )
    segment = struct.pack(
        "<IIQQQQQQ", 1, 5, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, size, size, 0x1000
    )  # PT_LOAD, readable and executable, the whole file
    return elf + segment + _X86_64


def _tar(files: dict[str, tuple[bytes, int]]) -> bytes:
    """An archive of ``{path: (content, mode)}``, the same bytes every time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, (content, mode) in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def archive() -> bytes:
    """The image :data:`IMAGE` as an OCI archive, to be imported into the container runtime."""
    blobs: dict[str, tuple[bytes, int]] = {}

    def add(content: bytes, media_type: str) -> dict[str, object]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = (content, 0o644)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def add_json(document: dict[str, object], media_type: str) -> dict[str, object]:
        return add(json.dumps(document, sort_keys=True).encode(), media_type)

    layer = add(_tar({"pause": (program(), 0o755)}), "application/vnd.oci.image.layer.v1.tar")
    config = add_json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/pause"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        },
        "application/vnd.oci.image.config.v1+json",
    )
    manifest = add_json(
        {"schemaVersion": 2, "config": config, "layers": [layer]},
        "application/vnd.oci.image.manifest.v1+json",
    )
    manifest["annotations"] = {"io.containerd.image.name": IMAGE}
    index = {"schemaVersion": 2, "manifests": [manifest]}
    return _tar(
        {
            "oci-layout": (b'{"imageLayoutVersion":"1.0.0"}', 0o644),
            "index.json": (json.dumps(index).encode(), 0o644),
            **blobs,
        }
    )
