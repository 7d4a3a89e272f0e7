"""Imports saved objects into OpenSearch Dashboards, replacing those of the same ids: import_objects.py URL FILE.ndjson

With OPENSEARCH_INDEX, its name takes the place of `signup-events` in the index pattern. Exits with 1 if an object is
refused or Dashboards does not answer.
"""

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

INDEX = "signup-events"
BOUNDARY = "signup-sync-saved-objects"


def main(url: str, file: str) -> int:
    objects = Path(file).read_text().replace(f'"{INDEX}-*"', f'"{os.environ.get("OPENSEARCH_INDEX") or INDEX}-*"')
    try:
        with urllib.request.urlopen(request(url, objects), timeout=60) as response:  # noqa: S310 - from compose.yaml
            answer = json.load(response)
    except (OSError, ValueError) as error:
        detail = error.read().decode(errors="replace") if isinstance(error, urllib.error.HTTPError) else ""
        print(f"Dashboards at {url} did not import the saved objects: {error} {detail}", file=sys.stderr)
        return 1
    if not answer.get("success"):
        print(f"Dashboards refused saved objects: {json.dumps(answer.get('errors'))}", file=sys.stderr)
        return 1
    print(f"{answer['successCount']} saved objects imported")
    return 0


def request(url: str, objects: str) -> urllib.request.Request:
    """The import as a browser would post it: one file in a form."""
    head = 'Content-Disposition: form-data; name="file"; filename="events.ndjson"\r\nContent-Type: application/ndjson'
    body = f"--{BOUNDARY}\r\n{head}\r\n\r\n{objects}\r\n--{BOUNDARY}--\r\n"
    return urllib.request.Request(  # noqa: S310 - from compose.yaml
        f"{url}/api/saved_objects/_import?overwrite=true",
        data=body.encode(),
        headers={"Content-Type": f"multipart/form-data; boundary={BOUNDARY}", "osd-xsrf": "true"},
        method="POST",
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
