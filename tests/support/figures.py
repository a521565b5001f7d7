"""What two runs are compared by."""

from typing import Any

from flsec.simulations.run_folder import RunFolder


def figures(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the records without what depends on the clock."""
    records = folder.rounds()
    for record in records:
        record.pop("seconds", None)
        record.pop("stages", None)
        for defense in record.get("defenses", []):
            defense.pop("seconds")
    return records
