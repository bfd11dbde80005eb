"""Reads {name: YAML text} as JSON on standard input. Writes {"documents": {name: [document, …]}, "versions": […], "errors": […]}.

Errors are what the schemas of Kubernetes say, for each version from 1.31 on, unknown fields included. Kinds of operators have no schema there.
"""

import functools
import json
import sys

import yaml
from kubernetes_validate import utils

# The schemas are read from their files for each document otherwise.
utils.schema_contents = functools.lru_cache(maxsize=None)(utils.schema_contents)

OPERATORS = ("monitoring.coreos.com/", "cert-manager.io/")

texts = json.load(sys.stdin)
documents = {name: [item for item in yaml.load_all(text, Loader=yaml.CSafeLoader) if item] for name, text in texts.items()}
# Each version is there twice: with and without unknown fields.
versions = [version for version in dict.fromkeys(map(utils.major_minor, utils.all_versions())) if int(version.split(".")[1]) >= 31]
errors = []
seen = set()
for name, items in documents.items():
    for item in items:
        text = json.dumps(item, sort_keys=True)
        if text in seen or "apiVersion" not in item or item["apiVersion"].startswith(OPERATORS):
            continue
        seen.add(text)
        for version in versions:
            try:
                utils.validate(item, version, strict=True)
            except (utils.ValidationError, utils.SchemaNotFoundError) as error:
                where = ".".join(map(str, getattr(error, "path", [])))
                errors.append(f"{name}: {utils.kn(item)} in Kubernetes {version}: {where}: {error.message}")
json.dump({"documents": documents, "versions": versions, "errors": errors}, sys.stdout)
