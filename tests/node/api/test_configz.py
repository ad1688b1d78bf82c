"""/configz says what a node is set to, in KubeletConfiguration's words."""

from __future__ import annotations

from sampan.node.api.configz import kubelet_configuration
from sampan.node.config import AgentConfig


def test_names_and_forms():
    config = AgentConfig(eviction_hard="memory.available<100Mi,nodefs.available<10%", pressure_transition=90)
    found = kubelet_configuration(config)
    assert found["evictionHard"] == {"memory.available": "100Mi", "nodefs.available": "10%"}
    assert found["evictionPressureTransitionPeriod"] == "1m30s"
    assert (found["containerLogMaxSize"], found["containerLogMaxFiles"], found["maxPods"]) == ("10Mi", 5, 110)
    config = AgentConfig(log_max_size="1Mi", log_max_files=2, image_gc_age=600)
    found = kubelet_configuration(config)
    assert (found["containerLogMaxSize"], found["containerLogMaxFiles"]) == ("1Mi", 2)
    assert found["imageMinimumGCAge"] == "10m0s"
