"""Published weights: downloaded and checked, or a file that the setting ``weights`` names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dstbench.contracts import READY, Availability, Workspace
from dstbench.download import download
from dstbench.errors import ScoreError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Published:
    """The published weights of a feature extractor: one file, known by its checksum."""

    extractor: str
    url: str
    sha256: str
    megabytes: int

    def availability(self, given: Path | None, workspace: Workspace) -> Availability:
        """What an extractor finds: the file that the setting ``weights`` names, or the cache's."""
        if given is None:
            found = workspace.cache.has(*self._cached)
            return READY if found else Availability("download", f"{self._size} from {self.url}")
        return READY if given.is_file() else Availability("missing", self._refusal(given))

    def path(self, given: Path | None, workspace: Workspace) -> Path:
        """The file that the setting ``weights`` names, or the published one in the cache,
        downloaded where it is not there yet.

        Raises :class:`~dstbench.errors.ScoreError` where there is no such file, or the download
        fails or is not what was published.
        """
        if given is None:
            return self._downloaded(workspace)
        if not given.is_file():
            raise ScoreError(self._refusal(given))
        return given

    def tensors(self, path: Path) -> dict[str, Tensor]:
        """The tensors of a safetensors file, by name.

        Raises :class:`~dstbench.errors.ScoreError` for files of any other format.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise ScoreError(
                f"{path} is no safetensors file ({error}), and no other is read: weights in .pt, "
                f".pth and .bin files may hold code, which reading them would run; {self.right}"
            ) from error

    @property
    def right(self) -> str:
        """What the setting ``weights`` is to name, in words."""
        return f"it must be the file from {self.url}"

    @property
    def _size(self) -> str:
        return f"{self.megabytes:,} MB"

    @property
    def _cached(self) -> tuple[str, dict[str, str]]:
        return self.extractor, {"sha256": self.sha256}

    def _refusal(self, path: Path) -> str:
        return (
            f"the setting 'weights' of the feature extractor '{self.extractor}' names {path}, "
            f"which is no file; {self.right}"
        )

    def _downloaded(self, workspace: Workspace) -> Path:
        name = f"weights{Path(self.url).suffix}"

        def make(folder: Path) -> None:
            workspace.report(f"downloading {self.url} ({self._size})")
            try:
                download(self.url, folder / name, self.sha256)
            except OSError as error:
                raise ScoreError(
                    f"the weights of the feature extractor '{self.extractor}' could not be "
                    f"downloaded ({error}); get {self.url} and name the file in its setting "
                    "'weights'"
                ) from error

        return workspace.cache.folder(*self._cached, make, resumable=True) / name
