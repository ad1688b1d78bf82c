"""Prometheus' text form, read back by Prometheus' own client."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from sampan.base.exposition import family


def test_a_family_is_read_back_as_it_was():
    labels = {"path": 'C:\\dir\n"x"', "empty": ""}
    text = family("sampan_things", "gauge", "Things by place", [(labels, 2), ({}, 1.5)])
    (read,) = text_string_to_metric_families(text)
    assert (read.name, read.type, read.documentation) == ("sampan_things", "gauge", "Things by place")
    assert [(sample.labels, sample.value) for sample in read.samples] == [(labels, 2.0), ({}, 1.5)]
