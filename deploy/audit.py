"""`make audit`: report known vulnerabilities, licences and a bill of materials of the run-time dependencies
(requirements.txt).

Arguments are passed to pip-audit, for example for another vulnerability database: `--vulnerability-service osv
--osv-url URL`. Writes licences.txt and sbom.cdx.json to AUDIT_DIR (default: var/audit). The exit code is 1 if a
dependency has a known vulnerability, pip-audit fails or the bill of materials can't be written. Otherwise it is 0, even
if no database can be reached, which is reported.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = Path(os.environ.get("AUDIT_REQUIREMENTS", ROOT / "requirements.txt"))
FOLDER = Path(os.environ.get("AUDIT_DIR", ROOT / "var" / "audit"))
# The tools of this Python's environment.
BIN = Path(sys.executable).parent
# Error output of pip-audit, or of requests below it, if the database can't be reached. Any other error is a failure of
# the audit itself.
_IS_AWAY = re.compile(r"^requests\.exceptions\.(ConnectionError|\w*Timeout)|Could not connect to ", re.MULTILINE)


def main(arguments: Sequence[str]) -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    is_sound = audit(arguments)
    list_licences()
    write_bill(FOLDER / "sbom.cdx.json")
    return 0 if is_sound else 1


def audit(arguments: Sequence[str]) -> bool:
    """Whether no vulnerability is known. True even if no database can be reached."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [f"{BIN}/pip-audit", "--requirement", f"{REQUIREMENTS}", "--disable-pip", "--require-hashes"]
        command += ["--progress-spinner", "off", "--format", "json", "--output", f"{report}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not report.is_file():
            *_, reason = done.stderr.strip().splitlines() or [f"pip-audit ended with {done.returncode}"]
            if is_away := _IS_AWAY.search(done.stderr) is not None:
                print(f"Vulnerabilities: NOT AUDITED. The database could not be reached: {reason}")
            else:
                print(f"Vulnerabilities: NOT AUDITED. pip-audit failed: {reason}")
            return is_away
        dependencies = json.loads(report.read_text())["dependencies"]
    unknown = [each["name"] for each in dependencies if "skip_reason" in each]
    if len(unknown) == len(dependencies):
        print("Vulnerabilities: NOT AUDITED. The database could not be reached, or knows none of the dependencies.")
        return True
    found = [(each["name"], each["version"], flaw) for each in dependencies for flaw in each.get("vulns", ())]
    for name, version, flaw in found:
        print(f"Vulnerable: {name} {version}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'no version'}")
    print(f"Vulnerabilities: {len(found)} in {len(dependencies) - len(unknown)} dependencies.")
    if unknown:
        print(f"Not in the database, and not audited: {', '.join(unknown)}")
    return not found


def list_licences() -> None:
    """List the licences of the run-time dependencies that are installed; some are for other systems."""
    names = re.findall(r"^([\w.-]+)==", REQUIREMENTS.read_text(), re.MULTILINE)
    command = [f"{BIN}/pip-licenses", "--from", "mixed", "--order", "license", "--packages", *names]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (FOLDER / "licences.txt").write_text(listed)
    print(f"Licences ({FOLDER / 'licences.txt'}):\n{listed}")


def write_bill(bill: Path) -> None:
    command = [f"{BIN}/cyclonedx-py", "requirements", f"{REQUIREMENTS}", "--of", "JSON", "--output-file", f"{bill}"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    print(f"Bill of materials (CycloneDX): {bill}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
