"""Both extractors come in through the hook, and listing them loads no heavy library."""

import subprocess
import sys

import dstbench_features


def test_both_extractors_are_registered() -> None:
    extractors = dstbench_features.dstbench_feature_extractors()
    assert [extractor.name for extractor in extractors] == ["inception", "lenet-digits"]
    assert [list(extractor.Settings.model_fields) for extractor in extractors] == [["weights"], []]


def test_listing_them_imports_neither_torch_nor_torch_fidelity() -> None:
    program = (
        "import sys, dstbench.metrics, dstbench_features as plugin;"
        "plugin.dstbench_feature_extractors();"
        "print({'torch', 'torch_fidelity', 'sklearn'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "set()", run.stderr
