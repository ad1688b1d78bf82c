from sampan.cli.story import tell

BASE = {
    "namespace": "default",
    "cause": "pods default/p created",
    "outcome": "ok",
    "times": 1,
    "actions": [],
    "why": "",
}
TOLD = {"resource": "pods", "namespace": "default", "name": "p"}


def entry(**fields):
    return (
        BASE
        | {"time": "2026-01-01T12:00:01.123456Z", "controller": "c", "resource": "pods", "name": "p"}
        | fields
    )


def test_a_story_names_who_what_and_why():
    entries = [
        entry(
            controller="replicaset-controller",
            resource="replicasets.apps",
            name="rs",
            why="creates 1 missing pods",
            actions=["create pods default/p"],
        ),
        entry(
            controller="default-scheduler", actions=["bind pods default/p to n1"], refused={"n2": ["no room"]}
        ),
        entry(controller="x", outcome="conflict", times=3),
        entry(controller="idle", times=4),
        entry(controller="idle"),
    ]
    assert tell(TOLD | {"entries": entries}) == [
        "12:00:01.123  replicaset-controller for replicasets.apps rs: creates 1 missing pods",
        "              woken by pods default/p created",
        "              -> create pods default/p",
        "12:00:01.123  default-scheduler",
        "              woken by pods default/p created",
        "              -> bind pods default/p to n1",
        "                 not n2: no room",
        "12:00:01.123  x (3 times)",
        "              woken by pods default/p created",
        "              !! conflict",
        "looked and had nothing to do: idle (5)",
    ]


def test_the_garbage_collector_speaks_of_the_object_itself():
    [line, *_] = tell(TOLD | {"entries": [entry(resource="*", name="pods/p", why="its owner is gone")]})
    assert line == "12:00:01.123  c: its owner is gone"
