"""A real Helm 4: a chart with hooks and a definition is installed, upgraded, rolled back and uninstalled."""

from __future__ import annotations

import textwrap

import helm_python as helm
import pytest
from kubernetes import client, config

FILES = {
    "Chart.yaml": "apiVersion: v2\nname: shop\nversion: {version}\nappVersion: '1'\n",
    "values.yaml": "replicas: 2\ngreeting: hello\n",
    "crds/till.yaml": """
        apiVersion: apiextensions.k8s.io/v1
        kind: CustomResourceDefinition
        metadata: {name: tills.shop.example.com}
        spec:
          group: shop.example.com
          scope: Namespaced
          names: {plural: tills, singular: till, kind: Till}
          versions:
          - name: v1
            served: true
            storage: true
            schema:
              openAPIV3Schema:
                type: object
                properties:
                  spec: {type: object, properties: {coins: {type: integer}}}
        """,
    "templates/hook.yaml": """
        apiVersion: batch/v1
        kind: Job
        metadata:
          name: {{ .Release.Name }}-migrate
          annotations:
            helm.sh/hook: pre-install,pre-upgrade
            helm.sh/hook-delete-policy: before-hook-creation
        spec:
          backoffLimit: 0
          template:
            metadata: {annotations: {sampan.dev/simulate: "exit=0 after=0.1s"}}
            spec:
              restartPolicy: Never
              containers: [{name: migrate, image: tool}]
        """,
    "templates/app.yaml": """
        apiVersion: v1
        kind: ConfigMap
        metadata: {name: {{ .Release.Name }}-settings, labels: {app.kubernetes.io/managed-by: {{ .Release.Service }}}}
        data: {greeting: {{ .Values.greeting | quote }}, kube: {{ .Capabilities.KubeVersion.Minor | quote }}}
        ---
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: {{ .Release.Name }}}
        spec:
          replicas: {{ .Values.replicas }}
          selector: {matchLabels: {app: {{ .Release.Name }}}}
          template:
            metadata: {labels: {app: {{ .Release.Name }}}}
            spec: {containers: [{name: web, image: nginx}]}
        ---
        apiVersion: v1
        kind: Service
        metadata: {name: {{ .Release.Name }}}
        spec: {selector: {app: {{ .Release.Name }}}, ports: [{port: 80}]}
        ---
        apiVersion: shop.example.com/v1
        kind: Till
        metadata: {name: {{ .Release.Name }}}
        spec: {coins: 7}
        """,
}


def chart(directory, version="0.1.0"):
    for name, text in FILES.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        text = textwrap.dedent(text).lstrip()
        file.write_text(text.format(version=version) if name == "Chart.yaml" else text)
    return directory


def test_a_release_from_install_to_uninstall(kubeconfig_file, tmp_path):
    api = config.new_client_from_config(kubeconfig_file)
    core, apps = client.CoreV1Api(api), client.AppsV1Api(api)
    custom = client.CustomObjectsApi(api)

    def greeting():
        return core.read_namespaced_config_map("demo-settings", "shop").data["greeting"]

    with helm.Config(kubeconfig_path=kubeconfig_file, namespace="shop") as cfg:
        path = chart(tmp_path / "shop")
        release = cfg.install(path, "demo", create_namespace=True, wait="watcher", timeout=60)
        assert release["revision"] == 1
        assert apps.read_namespaced_deployment("demo", "shop").status.ready_replicas == 2
        assert core.read_namespaced_config_map("demo-settings", "shop").data["kube"] == "37"
        till = custom.get_namespaced_custom_object("shop.example.com", "v1", "shop", "tills", "demo")
        assert till["spec"] == {"coins": 7}
        job = client.BatchV1Api(api).read_namespaced_job("demo-migrate", "shop")
        assert job.status.succeeded == 1

        chart(path, "0.2.0")
        release = cfg.upgrade(path, "demo", {"greeting": "bye", "replicas": 3}, wait="watcher", timeout=60)
        assert (release["revision"], greeting()) == (2, "bye")
        assert apps.read_namespaced_deployment("demo", "shop").status.ready_replicas == 3

        cfg.rollback("demo", version=1, wait="watcher", timeout=60)
        assert greeting() == "hello"
        assert [r["revision"] for r in cfg.history("demo")] == [1, 2, 3]
        assert [r["name"] for r in cfg.list()] == ["demo"]

        with pytest.raises(helm.HelmError):
            cfg.upgrade(path, "demo", {"replicas": -1}, timeout=20)
        cfg.uninstall("demo", timeout=60, wait="watcher")
        assert cfg.list(all_states=True) == []
    assert apps.list_namespaced_deployment("shop").items == []
    assert [s.metadata.name for s in core.list_namespaced_secret("shop").items] == []


def test_a_dry_run_on_the_server_changes_nothing(kubeconfig_file, tmp_path):
    core = client.CoreV1Api(config.new_client_from_config(kubeconfig_file))
    core.create_namespace({"metadata": {"name": "dry"}})
    with helm.Config(kubeconfig_path=kubeconfig_file, namespace="dry") as cfg:
        release = cfg.install(chart(tmp_path / "shop"), "dry", dry_run="server", timeout=30)
        assert "kind: Deployment" in release["manifest"]
        assert cfg.list(all_states=True) == []
    assert {m.metadata.name for m in core.list_namespaced_config_map("dry").items} <= {"kube-root-ca.crt"}
