"""A status page's incidents as Statuspage publishes them: summary, incidents, Atom, RSS.

Incidents are dictionaries in Statuspage's own shape, newest update first. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Final, Literal
from xml.sax.saxutils import escape, quoteattr

Impact = Literal["none", "minor", "major", "critical", "maintenance"]
MOST_LISTED: Final = 50
"""As many incidents as Statuspage lists in its history."""
_RANK: Final[tuple[Impact, ...]] = ("none", "maintenance", "minor", "major", "critical")
_DESCRIPTION: Final = {
    "none": "All Systems Operational",
    "maintenance": "Service Under Maintenance",
    "minor": "Partially Degraded Service",
    "major": "Partial System Outage",
    "critical": "Major Service Outage",
}
_COMPONENT: Final = {
    "none": "operational",
    "maintenance": "under_maintenance",
    "minor": "degraded_performance",
    "major": "partial_outage",
    "critical": "major_outage",
}
_OVER: Final = ("resolved", "postmortem")


class Page:
    """A page's name, its components, and its incidents now."""

    def __init__(
        self,
        page_id: str,
        name: str,
        components: Sequence[str],
        incidents: Sequence[dict[str, Any]],
        updated_s: float,
    ) -> None:
        self._id = page_id
        self._name = name
        self._components = list(components)
        self._incidents = sorted(incidents, key=lambda i: str(i["created_at"]), reverse=True)
        self._updated = iso(updated_s)

    def summary(self) -> dict[str, Any]:
        """`/api/v2/summary.json`; resolved incidents are no longer on it, as on the real ones."""
        unresolved = [i for i in self._incidents if i["status"] not in _OVER]
        components = [
            {
                "id": f"{self._id}:{name}",
                "name": name,
                "status": _COMPONENT[_worst(i for i in unresolved if _is_hit(i, name))],
                "updated_at": self._updated,
            }
            for name in self._components
        ]
        worst = _worst(unresolved)
        return {
            "page": self._about(),
            "status": {"indicator": worst, "description": _DESCRIPTION[worst]},
            "components": components,
            "incidents": unresolved,
            "scheduled_maintenances": [],
        }

    def incidents(self) -> dict[str, Any]:
        """`/api/v2/incidents.json`: the newest fifty, over or not."""
        return {"page": self._about(), "incidents": self._incidents[:MOST_LISTED]}

    def atom(self, url: str) -> bytes:
        """`/history.atom`."""
        entries = [
            f"<entry><id>tag:{escape(self._id)},2005:Incident/{escape(i['id'])}</id>"
            f"<published>{i['created_at']}</published><updated>{i['updated_at']}</updated>"
            f'<link rel="alternate" type="text/html" href={quoteattr(_link(url, i))}/>'
            f"<title>{escape(i['name'])}</title>"
            f'<content type="html">{escape(_html(i))}</content></entry>'
            for i in self._incidents[:MOST_LISTED]
        ]
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<feed xml:lang="en-US" xmlns="http://www.w3.org/2005/Atom">'
            f"<id>tag:{escape(self._id)},2005:/history</id>"
            f'<link rel="alternate" type="text/html" href={quoteattr(url)}/>'
            f"<title>{escape(self._name)} Status - Incident History</title>"
            f"<updated>{self._updated}</updated>{''.join(entries)}</feed>\n"
        ).encode()

    def rss(self, url: str) -> bytes:
        """`/history.rss`."""
        items = [
            f"<item><title>{escape(i['name'])}</title>"
            f"<description>{escape(_html(i))}</description>"
            f"<pubDate>{format_datetime(datetime.fromisoformat(i['created_at']))}</pubDate>"
            f"<link>{escape(_link(url, i))}</link><guid>{escape(_link(url, i))}</guid></item>"
            for i in self._incidents[:MOST_LISTED]
        ]
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<rss version="2.0"><channel>'
            f"<title>{escape(self._name)} Status - Incident History</title>"
            f"<link>{escape(url)}</link><description>Statuspage</description>"
            f"{''.join(items)}</channel></rss>\n"
        ).encode()

    def _about(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "name": self._name,
            "time_zone": "Etc/UTC",
            "updated_at": self._updated,
        }


def iso(at_s: float) -> str:
    """A moment as these pages write it."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds")


def _worst(incidents: Any) -> Impact:
    found: Impact = max((i["impact"] for i in incidents), key=_RANK.index, default="none")
    return found


def _is_hit(incident: dict[str, Any], component: str) -> bool:
    return any(c["name"] == component for c in incident["components"])


def _link(url: str, incident: dict[str, Any]) -> str:
    return f"{url}/incidents/{incident['id']}"


def _html(incident: dict[str, Any]) -> str:
    told = "".join(
        f"<p><small>{u['created_at']}</small><br/>"
        f"<strong>{escape(u['status'].title())}</strong> - {escape(u['body'])}</p>"
        for u in incident["incident_updates"]
    )
    names = [c["name"] for c in incident["components"]]
    return told + (f"<p>Affected components: {escape(', '.join(names))}</p>" if names else "")
