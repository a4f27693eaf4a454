"""As much of kustomize as our kustomizations use; what they do not use is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path

Resource = dict[str, Any]

_KEYS = {
    *("apiVersion", "kind", "namespace", "resources", "configMapGenerator", "generatorOptions"),
    *("images",),
}
_CLUSTER_WIDE = {"Namespace"}


def build(folder: Path) -> list[Resource]:
    """The resources of a folder with a kustomization.yaml, as `kubectl apply -k` would send them.

    Names of generated ConfigMaps are left without the suffix that kustomize makes.
    """
    file = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    assert set(file) <= _KEYS, set(file) - _KEYS
    found = [resource for entry in file.get("resources", ()) for resource in _read(folder, entry)]
    options = file.get("generatorOptions", {})
    found += [_config_map(folder, entry, options) for entry in file.get("configMapGenerator", ())]
    for resource in found:
        _set_images(resource, file.get("images", ()))
        if "namespace" in file and resource["kind"] not in _CLUSTER_WIDE:
            resource["metadata"]["namespace"] = file["namespace"]
    return found


def _read(folder: Path, entry: str) -> list[Resource]:
    path = folder / entry
    if path.is_dir():
        root = path.resolve()
        assert not folder.resolve().is_relative_to(root), f"{entry} contains {folder}: a cycle"
        return build(root)
    return list(yaml.safe_load_all(_inside(folder, entry).read_text("utf-8")))


def _config_map(folder: Path, entry: dict[str, Any], options: dict[str, Any]) -> Resource:
    assert set(entry) == {"name", "files"}
    paths = [_inside(folder, name) for name in entry["files"]]
    wanted = ("labels", "annotations")
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": entry["name"], **{k: v for k, v in options.items() if k in wanted}},
        "data": {path.name: path.read_text("utf-8") for path in paths},
    }


def _inside(folder: Path, name: str) -> Path:
    """A file, which kustomize reads only where it stands under the kustomization."""
    path = (folder / name).resolve()
    assert path.is_relative_to(folder.resolve()), f"{name} is outside {folder}"
    return path


def _set_images(resource: Resource, images: Any) -> None:
    pod = resource.get("spec", {}).get("template", {}).get("spec", {})
    for container in pod.get("containers", ()):
        for image in images:
            if container["image"] == image["name"]:
                container["image"] = f"{image['newName']}:{image['newTag']}"
