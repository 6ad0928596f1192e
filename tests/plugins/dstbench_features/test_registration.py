"""What ships comes in through the hooks, and listing it loads no heavy library."""

import subprocess
import sys

import dstbench_features

from dstbench.settings import METRICS


def test_extractors_and_metrics_are_registered() -> None:
    extractors = dstbench_features.dstbench_feature_extractors()
    assert [extractor.name for extractor in extractors] == [
        "clip",
        "dinov2",
        "efficientnet-lite0",
        "inception",
        "lenet-digits",
    ]
    settings = [list(each.Settings.model_fields) for each in extractors]
    assert settings == [["weights"], ["size", "weights"], [], ["weights"], []]
    metrics = dstbench_features.dstbench_metrics()
    assert [metric.name for metric in metrics] == [*METRICS, "density-coverage"]


def test_listing_them_imports_neither_torch_nor_torch_fidelity() -> None:
    program = (
        "import sys, dstbench.metrics, dstbench_features as plugin;"
        "plugin.dstbench_feature_extractors(); plugin.dstbench_metrics();"
        "print({'torch', 'torch_fidelity', 'timm', 'sklearn'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "set()", run.stderr
