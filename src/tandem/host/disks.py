"""The files of virtual machines on this host: disks out of images, empty disks, seeds, kernels.

One directory for each machine, ``machines/<uid>/`` under the data directory, appears complete by one
rename and goes as a whole; a preparation that fails or is cancelled leaves nothing. Nothing big is
copied per machine:

- A disk image stays where the container runtime keeps it, or is copied once for all machines (see
  :mod:`tandem.host.imagecopies`). It is read-only to every machine, which writes to a qcow2 overlay.
- Kernels and initial ramdisks always are such copies: libvirt gives the files it boots from to
  QEMU's user, which must not happen to the container runtime's own.
- What outlives a machine (a claim's disk, a host's, the variables of a persistent EFI) is linked or
  referred to, and stays when the machine goes.

What is made of which part of a spec is in :mod:`tandem.host.diskplan`.

QEMU runs as a user of its own, so directories here can be passed through but not listed by others;
what a guest writes or a seed's secrets stay readable by root and, while it runs, QEMU alone (libvirt
changes the owner at start and back at the end).
"""

from __future__ import annotations

import asyncio
import shutil
import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

from tandem.errors import Cause, InvalidSpec, TandemError, Unavailable, Unsupported
from tandem.host.cpupool import CpuPool
from tandem.host.diskplan import Plan
from tandem.host.imagecopies import KEEP_UNUSED_SECONDS, FoundFile, ImageCopies
from tandem.host.machinefiles import UID, MachineFiles, Sources, check_name, complete, recorded
from tandem.host.run import blocking

DOMAIN_UUID = "uuid"
"""In a machine's state: the UUID by which libvirt keeps its TPM."""

_SWTPM = Path("/var/lib/libvirt/swtpm")
_PASS_THROUGH = 0o711


class ImageFile(Protocol):
    """Finds a file in an image, pulling it as ``pull_policy`` says; see the capability ImageFiles."""

    async def __call__(
        self, image: str, path: str | None, *, pull_policy: str = "IfNotPresent"
    ) -> FoundFile: ...


class MachineDisks:
    """The files of all machines under one data directory.

    ``root`` is that directory; ``image_file`` finds files in images, ``None`` where no container
    runtime can (volumes that need it are then refused); ``keep_unused`` is for how many seconds;
    ``pool`` has the host's processors.
    """

    def __init__(
        self,
        root: Path,
        image_file: ImageFile | None = None,
        *,
        keep_unused: float = KEEP_UNUSED_SECONDS,
        pool: CpuPool | None = None,
    ) -> None:
        self._machines = root / "machines"
        self._state = root / "machine-state"
        self._pool = pool or CpuPool()
        self._copies = ImageCopies(root / "images", keep_unused=keep_unused)
        self._image_file = image_file
        self._busy: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def prepare(
        self,
        uid: str,
        vmi: Mapping[str, Any],
        *,
        sources: Sources | None = None,
        vcpus: int = 1,
    ) -> MachineFiles:
        """Make the files of the VirtualMachineInstance ``vmi``, whose UID is ``uid``; all or none.
        ``vcpus``: how many processors the guest sees.

        A second call for the same ``uid`` returns the same files as they are now: disks are only
        ever made once, and go with :meth:`remove`. Raises ``InvalidSpec`` and ``Unsupported`` (the
        fields are named), ``ImagePullError``, ``Unavailable``, ``NotFound``.
        """
        check_name(UID, uid, "metadata.uid")
        async with self._lock(uid):
            target = self._machines / uid
            work = self._machines / f".{uid}"
            try:
                if (files := await blocking(self._begin, work, target)) is not None:
                    return files
                cpus: tuple[int, ...] = ()
                emulator = 0
                if dedicated := (vmi["spec"]["domain"].get("cpu") or {}).get(
                    "dedicatedCpuPlacement"
                ):
                    take = self._pool.take
                    cpus, emulator = await blocking(take, uid, vmi, vcpus, self._machines)
                files = await Plan(self, work, target, vmi, sources).carry_out()
                if dedicated:
                    files = replace(files, cpus=cpus, emulator_cpus=emulator)
                await blocking(complete, work, target, files)
            except BaseException:
                # Whoever cancels waits for this too, so that nothing is left when they are told.
                await asyncio.shield(self._take_away([work.name, uid]))
                raise
            return files

    async def remove(self, uid: str) -> None:
        """Take away all files of the machine. One that has none is success."""
        check_name(UID, uid, "metadata.uid")
        async with self._lock(uid):
            await self._take_away([uid])

    async def sweep(self, keep: Collection[str]) -> list[str]:
        """Take away the files of every machine whose UID is not in ``keep``, and what interrupted
        preparations left; returns the UIDs. Only safe while no preparation runs."""
        return await blocking(self._sweep, keep)

    async def shared_cpus(self) -> tuple[int, ...]:
        """The processors that are nobody's alone; empty while nobody has any."""
        if self._pool.is_whole:
            return ()
        return await blocking(self._pool.shared, self._machines)

    async def keep_tpm(self, owner: str, uuid: str) -> None:
        """Remember whose TPM it is that libvirt keeps by the domain's ``uuid``."""
        await blocking(_note_uuid, self.state(owner), uuid)

    async def forget(self, owner: str) -> None:
        """Take away what was kept for a machine that is deleted. None is success."""
        await blocking(_remove_state, self.state(owner))

    async def sweep_state(self, keep: Collection[str]) -> None:
        """Take away what was kept for machines whose UID is not in ``keep``."""
        for name in await blocking(_names, self._state):
            if name not in keep:
                await blocking(_remove_state, self._state / name)

    # -- used by a plan ------------------------------------------------------------------------

    async def find(self, image: str, path: str | None, policy: str, where: str) -> FoundFile:
        """The file ``path`` of ``image``; ``where`` names the field for errors."""
        if self._image_file is None:
            message = "the container runtime here cannot give files out of images"
            raise Unsupported(f"{where}: {message}", causes=[Cause(where, message)])
        found = await self._image_file(image, path, pull_policy=policy)
        if not await blocking(_is_regular, found.path):
            message = f"{path or found.path.name!r} in image {image!r} is not a plain file"
            raise InvalidSpec(f"{where}: {message}", causes=[Cause(where, message)])
        return found

    async def link(self, found: FoundFile, target: Path, *, may_change: bool = False) -> None:
        """Give a machine the file as ``target``; ``may_change`` when its owner may be changed."""
        if may_change:
            await self._copies.link_copy(found, target)
        else:
            await self._copies.link(found, target)

    def state(self, owner: str) -> Path:
        """The directory of what is kept for the machine ``owner`` (its UID) from one run to the
        next."""
        check_name(UID, owner, "metadata.uid")
        return self._state / owner

    async def _take_away(self, names: Iterable[str]) -> None:
        await blocking(self._remove, names)
        await self._copies.prune()

    def _lock(self, name: str) -> asyncio.Lock:
        return self._busy.setdefault(name, asyncio.Lock())

    # -- blocking ------------------------------------------------------------------------------

    def _begin(self, work: Path, target: Path) -> MachineFiles | None:
        """Make an empty directory to work in; or say what is there already."""
        if (files := recorded(target)) is not None:
            return files
        try:
            for directory in (self._machines, self._copies.folder):
                directory.mkdir(parents=True, exist_ok=True)
                directory.chmod(_PASS_THROUGH)
            shutil.rmtree(work, ignore_errors=True)  # of a preparation that was killed
            work.mkdir()
            work.chmod(_PASS_THROUGH)
        except OSError as error:
            raise Unavailable(f"cannot make the files of a machine: {error}") from error
        return None

    def _remove(self, uids: Iterable[str]) -> None:
        for uid in uids:
            self._pool.give_back(uid)
            shutil.rmtree(self._machines / uid, ignore_errors=True)
            if (self._machines / uid).exists():
                raise TandemError(f"cannot remove {self._machines / uid}")

    def _sweep(self, keep: Collection[str]) -> list[str]:
        try:
            found = [entry.name for entry in self._machines.iterdir()]
        except FileNotFoundError:
            return []
        stale = [name for name in found if name not in keep]
        self._remove(stale)
        self._copies.remove_unused(0, partial=True)
        return [name for name in stale if not name.startswith(".")]


def _is_regular(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except FileNotFoundError:
        return []


def _note_uuid(state: Path, uuid: str) -> None:
    state.mkdir(parents=True, exist_ok=True)
    (state / DOMAIN_UUID).write_text(uuid)


def _remove_state(state: Path) -> None:
    """With swtpm's, which libvirt keeps by the domain's UUID."""
    try:
        uuid = (state / DOMAIN_UUID).read_text()
    except OSError:
        uuid = ""
    if UID.fullmatch(uuid):
        shutil.rmtree(_SWTPM / uuid, ignore_errors=True)
    shutil.rmtree(state, ignore_errors=True)
