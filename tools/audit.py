"""The dependency audit: known vulnerabilities where a vulnerability service answers, and always that the versions fit together.

pip-audit skips what its service does not know and still ends well, so an unreachable or filtered service would look like a clean bill. This
script counts what was really audited, and says in one line when it was nothing. Exits 1 for a vulnerability or for versions that don't fit.
"""

import json
import subprocess
import sys
from typing import Any

OURS = "lily-jobs"


def ask(service: str) -> list[dict[str, Any]] | None:
    """What pip-audit says about each installed distribution; None when the service gave no answer that can be read."""
    command = [
        sys.executable,
        "-m",
        "pip_audit",
        "--local",
        "--progress-spinner",
        "off",
        "--format",
        "json",
        "--vulnerability-service",
        service,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return list(json.loads(done.stdout)["dependencies"])
    except (subprocess.TimeoutExpired, ValueError, KeyError):
        return None


def judge(found: list[dict[str, Any]] | None) -> tuple[list[str], list[str], list[str]]:
    """(audited names, skipped names, one line for each vulnerability)."""
    others = [item for item in found or [] if item["name"] != OURS]
    audited = [str(item["name"]) for item in others if "skip_reason" not in item]
    skipped = [str(item["name"]) for item in others if "skip_reason" in item]
    flaws = [
        f"{item['name']} {item['version']}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'no release yet'}"
        for item in others
        for flaw in item.get("vulns", [])
    ]
    return audited, skipped, flaws


def vulnerabilities() -> int:
    """Ask the services in turn until one has audited something; returns how many vulnerabilities it knows."""
    for service in ("pypi", "osv"):
        audited, skipped, flaws = judge(ask(service))
        if audited:
            left = f"; it does not know {', '.join(skipped)}" if skipped else ""
            print(f"dependency audit: {len(audited)} distributions audited by {service}, {len(flaws)} known vulnerabilities{left}")
            print("\n".join(flaws), end="\n" if flaws else "")
            return len(flaws)
    print("dependency audit: NO VULNERABILITY SERVICE ANSWERED (pypi, osv), so none was looked for; only `pip check` was done")
    return 0


def main() -> int:
    """Both checks; the exit status."""
    flaws = vulnerabilities()
    fits = subprocess.run([sys.executable, "-m", "pip", "check"], check=False).returncode
    return 1 if flaws or fits else 0


if __name__ == "__main__":
    sys.exit(main())
