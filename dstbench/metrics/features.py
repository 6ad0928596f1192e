"""Features of images, and those of a dataset's real images, which all cells share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dstbench.contracts import Data, FeatureExtractor, Features, Workspace
from dstbench.errors import ScoreError
from dstbench.journal import Journal
from dstbench.settings import EvaluationSettings

if TYPE_CHECKING:
    from torch import Tensor

Images = Callable[[range], "Tensor"]
"""Makes uint8 images (N, C, H, W) of the items at some places."""


def extract(batches: Iterable[Tensor], extractor: FeatureExtractor) -> Features:
    """Features of all images of all batches, in order, as float32 on the CPU.

    Raises :class:`~dstbench.errors.ScoreError` for anything but uint8 images (N, C, H, W) with
    C = 1 or 3, and for an extractor whose features are not finite matrices.
    """
    parts = []
    for images in batches:
        _check_images(images)
        parts.append(extractor(images))
    return _together(parts, extractor)


def _together(parts: Sequence[Features], extractor: FeatureExtractor) -> Features:
    import torch

    if not parts:
        raise ScoreError("there are no images to extract features from; at least two are needed")
    logits = [part.logits for part in parts if part.logits is not None]
    features = Features(
        torch.cat([part.features for part in parts]).float().cpu(),
        torch.cat(logits).float().cpu() if logits else None,
    )
    _check_features(features, extractor.name)
    return features


def extract_in_parts(
    count: int, size: int, images: Images, extractor: FeatureExtractor, unfinished: Path
) -> Features:
    """Features of ``count`` images, ``size`` at a time, as :func:`extract` has them.

    They are kept in the file ``unfinished`` as they are made, and those that are there are not made
    again.

    Raises :class:`~dstbench.errors.ScoreError` as :func:`extract` does.
    """
    import torch

    parts: list[Features] = []
    seen: list[int] = []

    def take(content: bytes, note: Mapping[str, Any]) -> None:
        columns = note["columns"]
        rows = torch.frombuffer(bytearray(content), dtype=torch.float32).view(-1, sum(columns))
        features, *logits = torch.split(rows, columns, dim=1)
        parts.append(Features(features, logits[0] if logits else None))
        seen.append(note["images"])

    with Journal(unfinished, take) as journal:
        for start in range(sum(seen), count, size):
            batch = range(start, min(start + size, count))
            part = extract([images(batch)], extractor)
            both = [part.features] if part.logits is None else [part.features, part.logits]
            content = torch.cat(both, dim=1).numpy().tobytes()
            columns = [values.shape[1] for values in both]
            journal.add(content, {"images": len(batch), "columns": columns})
    return _together(parts, extractor)


def real_features(
    data: Data,
    dataset: str,
    extractor: FeatureExtractor,
    settings: EvaluationSettings,
    workspace: Workspace,
) -> Features:
    """Features of all images of the reference split, extracted once and then cached by content.

    Raises :class:`~dstbench.errors.ScoreError` where the split has too few images for precision
    and recall, so that this is known before anything is trained.
    """
    from safetensors.torch import load_file, save_file

    count = len(data.split(settings.reference))
    require_neighbours(count, f"images in {dataset}/{settings.reference}", settings)

    def make(folder: Path) -> None:
        workspace.report(f"{extractor.name} features of {count} images: {dataset}")
        items = data.split(settings.reference)
        features = extract_in_parts(
            count,
            settings.batch_size,
            lambda rows: data.to_images([items[row] for row in rows]),
            extractor,
            folder / "features.partial",
        )
        named = {"features": features.features, "logits": features.logits}
        tensors = {name: values for name, values in named.items() if values is not None}
        save_file(tensors, folder / "features.safetensors")

    key = {
        "data": data.fingerprint,
        "split": settings.reference,
        "extractor": extractor.name,
        "weights_hash": extractor.weights_hash,
        "resize": extractor.resize,
    }
    folder = workspace.cache.folder("features", key, make, resumable=True)
    return Features(**load_file(folder / "features.safetensors"))


def require_neighbours(count: int, what: str, settings: EvaluationSettings) -> None:
    """Raise :class:`~dstbench.errors.ScoreError` unless each of ``count`` images has the
    ``settings.neighbours`` others that precision and recall look for."""
    if count <= settings.neighbours:
        raise ScoreError(
            f"there are {count} {what}, but precision and recall with "
            f"neighbours = {settings.neighbours} need at least {settings.neighbours + 1}"
        )


def _check_images(images: Tensor) -> None:
    import torch

    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ScoreError(
            f"images to score are {images.dtype} of shape {tuple(images.shape)}; "
            "they must be torch.uint8 of shape (N, C, H, W) with C = 1 or 3"
        )


def _check_features(features: Features, extractor: str) -> None:
    for what, values in (("features", features.features), ("logits", features.logits)):
        if values is None:
            continue
        if values.ndim != 2 or values.shape[1] < 2:
            raise ScoreError(
                f"{what} of the extractor {extractor!r} have shape {tuple(values.shape)}; "
                "they must be a matrix (N, D) with D of at least 2"
            )
        if not values.isfinite().all():
            raise ScoreError(f"{what} of the extractor {extractor!r} are not all finite")
