"""Records: what earlier versions have written is read, and completed."""

import json

from dstbench.records import Record

LATER = ("neighbours", "kid_subsets", "kid_subset_size", "kid_scale", "inception_score_splits",
         "library")  # fmt: skip


def test_an_early_record_has_the_protocol_that_its_cell_asked_for(make_record):
    record = make_record(
        cell={"evaluation": {"neighbours": 5, "kid_subset_size": 2000}},
        environment={"packages": {"torch-fidelity": "0.4.0"}},
        protocol={"samples": 7},
    )
    early = json.loads(record.model_dump_json())
    for field in LATER:
        del early["protocol"][field]
    read = Record.model_validate(early)
    assert read == record
    assert [getattr(read.protocol, field) for field in LATER] == [
        5, 100, 7, 1.0, 7, "torch-fidelity 0.4.0"
    ]  # fmt: skip


def test_a_protocol_that_is_told_is_left_as_it_is(make_record):
    told = {"neighbours": 9, "kid_scale": 1000.0, "library": "other 1"}
    record = make_record(protocol=told)
    again = Record.model_validate_json(record.model_dump_json())
    assert again.protocol.model_dump().items() >= told.items()
    assert again.protocol.kid_subsets is None
