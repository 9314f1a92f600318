"""A page of every format, made by hand after what the formats' makers document."""

from __future__ import annotations

import json
from typing import Final

STATUSPAGE: Final = json.dumps(
    {
        "page": {"id": "p1", "name": "Acme AI", "updated_at": "2024-03-01T10:20:00.000Z"},
        "status": {"indicator": "major", "description": "Partial System Outage"},
        "components": [
            {"id": "c0", "name": "Models", "status": "major_outage", "group": True},
            {"id": "c1", "name": "API", "status": "partial_outage", "group_id": "c0"},
            {
                "id": "c2",
                "name": "Embeddings",
                "status": "degraded_performance",
                "updated_at": "2024-03-01T10:00:00Z",
            },
            {"id": "c3", "name": "Console", "status": "operational"},
        ],
        "incidents": [
            {
                "id": "i1",
                "name": "Elevated errors on gpt-4o",
                "status": "identified",
                "impact": "major",
                "created_at": "2024-03-01T10:11:00Z",
                "started_at": "2024-03-01T10:00:00Z",
                "updated_at": "2024-03-01T10:20:00Z",
                "resolved_at": None,
                "components": [{"id": "c1", "name": "API", "status": "partial_outage"}],
                "incident_updates": [
                    {
                        "status": "identified",
                        "body": "<p>Found &amp; <b>fixing</b>.</p>",
                        "created_at": "2024-03-01T10:20:00Z",
                        "affected_components": [{"code": "c1", "name": "API"}],
                    },
                    {
                        "status": "investigating",
                        "body": "Looking.",
                        "created_at": "2024-03-01T10:11:00Z",
                    },
                ],
            }
        ],
        "scheduled_maintenances": [
            {
                "id": "m1",
                "name": "Database upgrade",
                "status": "scheduled",
                "impact": "maintenance",
                "created_at": "2024-02-20T10:00:00Z",
                "updated_at": "2024-02-20T10:00:00Z",
                "scheduled_for": "2024-03-05T02:00:00Z",
                "scheduled_until": "2024-03-05T04:00:00Z",
                "components": [],
                "incident_updates": [],
            }
        ],
    }
).encode()
INCIDENT_IO: Final = json.dumps(
    {
        "page": {"id": "p", "name": "Io", "url": "https://status.io.example"},
        "incidents": [
            {
                "id": "01H",
                "name": "Slow answers",
                "status": "resolved",
                "created_at": "2025-06-10T08:00:00Z",
                "updated_at": "2025-06-10T09:30:00Z",
                "incident_updates": [
                    {
                        "status": "resolved",
                        "created_at": "2025-06-10T09:30:00Z",
                        "affected_components": [
                            {"name": "Chat Completions", "new_status": "operational"}
                        ],
                    },
                    {
                        "status": "investigating",
                        "created_at": "2025-06-10T08:00:00Z",
                        "affected_components": [
                            {"name": "Chat Completions", "new_status": "full_outage"}
                        ],
                    },
                ],
            }
        ],
    }
).encode()
ATOM: Final = b"""<?xml version="1.0" encoding="UTF-8"?>
<feed xml:lang="en-US" xmlns="http://www.w3.org/2005/Atom">
  <id>tag:status.acme.example,2005:/history</id><title>Acme Status - Incident History</title>
  <updated>2024-03-01T12:00:00Z</updated>
  <entry>
    <id>tag:status.acme.example,2005:Incident/1</id>
    <published>2024-03-01T10:11:00Z</published><updated>2024-03-01T11:40:00Z</updated>
    <link rel="alternate" href="https://status.acme.example/incidents/1"/>
    <title>Major outage of the API</title>
    <content type="html">&lt;p&gt;&lt;small&gt;Mar 1, 11:40 UTC&lt;/small&gt;&lt;br&gt;
      &lt;strong&gt;Resolved&lt;/strong&gt; - All is well.&lt;/p&gt;&lt;p&gt;
      &lt;strong&gt;Investigating&lt;/strong&gt; - Looking.&lt;/p&gt;</content>
  </entry>
</feed>"""
RSS: Final = b"""<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0"><channel><title>Io</title><link>https://status.io.example</link>
  <description>History</description>
  <item><title>Slow answers</title><guid>https://status.io.example/i/2</guid>
    <pubDate>Tue, 10 Jun 2025 08:00:00 +0000</pubDate>
    <description><![CDATA[<b>Status: Monitoring</b><br/>Better.<br/><b>Affected components</b>
      <ul><li>Chat Completions (Partial outage)</li><li>Batch (Operational)</li></ul>]]>
    </description></item>
</channel></rss>"""
GOOGLE: Final = json.dumps(
    [
        {
            "id": "g1",
            "number": "1",
            "begin": "2025-06-12T17:51:00+00:00",
            "created": "2025-06-12T18:46:44+00:00",
            "end": None,
            "modified": "2025-06-12T19:00:00+00:00",
            "external_desc": "Elevated API errors",
            "updates": [
                {
                    "created": "2025-06-12T18:46:44+00:00",
                    "text": "We are investigating.",
                    "status": "SERVICE_DISRUPTION",
                }
            ],
            "status_impact": "SERVICE_OUTAGE",
            "severity": "high",
            "service_name": "Multiple Products",
            "affected_products": [{"title": "Vertex Gemini API", "id": "Z0"}],
            "currently_affected_locations": [{"title": "Iowa", "id": "us-central1"}],
            "previously_affected_locations": [],
        }
    ]
).encode()
AWS: Final = b"""<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0"><channel>
  <title><![CDATA[Amazon Bedrock (N. Virginia) Service Status]]></title>
  <link>http://status.aws.amazon.com/</link><description>d</description>
  <item><title><![CDATA[Service is operating normally: [RESOLVED] Increased Error Rates]]></title>
    <pubDate>Thu, 13 Jun 2024 14:05:00 PDT</pubDate>
    <guid isPermaLink="false">http://status.aws.amazon.com/#bedrock-us-east-1_1718312700</guid>
    <description><![CDATA[Recovered.]]></description></item>
  <item><title><![CDATA[Service degradation: Increased Error Rates]]></title>
    <pubDate>Thu, 13 Jun 2024 12:05:00 PDT</pubDate>
    <guid isPermaLink="false">http://status.aws.amazon.com/#bedrock-us-east-1_1718305500</guid>
    <description><![CDATA[We are investigating.]]></description></item>
</channel></rss>"""
AZURE: Final = b"""<?xml version="1.0" encoding="utf-8"?>
<rss xmlns:a10="http://www.w3.org/2005/Atom" version="2.0"><channel><title>Azure Status</title>
  <link>https://status.azure.com/status/</link><description>Azure Status</description>
  <item><guid isPermaLink="false">A1</guid><link>https://status.azure.com/status/</link>
    <category>Azure OpenAI Service</category>
    <title>Azure OpenAI Service - East US - Applying Mitigation</title>
    <description>&lt;p&gt;Errors.&lt;/p&gt;</description>
    <pubDate>Wed, 29 Oct 2025 16:00:00 Z</pubDate>
    <a10:updated>2025-10-29T17:00:00Z</a10:updated></item>
</channel></rss>"""
INSTATUS: Final = json.dumps(
    {
        "page": {"name": "Acme", "url": "https://status.acme.example", "status": "HASISSUES"},
        "activeIncidents": [
            {
                "name": "Errors",
                "started": "Sat Jun 11 2022 18:55:50 GMT+0000 (Coordinated Universal Time)",
                "status": "INVESTIGATING",
                "impact": "MAJOROUTAGE",
                "url": "https://status.acme.example/incident/cl4a8",
            }
        ],
        "activeMaintenances": [
            {
                "name": "Upgrade",
                "start": "Sat Jun 11 2022 19:55:54 GMT+0000 (Coordinated Universal Time)",
                "status": "NOTSTARTEDYET",
                "duration": "60",
            }
        ],
    }
).encode()
BETTER_STACK: Final = json.dumps(
    {
        "data": {"id": "1", "type": "status_page", "attributes": {"aggregate_state": "degraded"}},
        "included": [
            {
                "id": "10",
                "type": "status_page_resource",
                "attributes": {"public_name": "Llama 3.3 70B", "status": "degraded"},
            },
            {
                "id": "11",
                "type": "status_page_resource",
                "attributes": {"public_name": "Qwen", "status": "downtime"},
            },
            {
                "id": "20",
                "type": "status_report",
                "attributes": {
                    "title": "Slow starts",
                    "report_type": "manual",
                    "starts_at": "2025-11-20T10:00:00.000Z",
                    "ends_at": None,
                    "affected_resources": [{"status_page_resource_id": "10", "status": "degraded"}],
                },
                "relationships": {
                    "status_updates": {"data": [{"id": "30", "type": "status_update"}]}
                },
            },
            {
                "id": "30",
                "type": "status_update",
                "attributes": {
                    "message": "Looking.",
                    "published_at": "2025-11-20T10:05:00.000Z",
                    "affected_resources": [{"status_page_resource_id": "10", "status": "degraded"}],
                },
            },
        ],
    }
).encode()
PAGES: Final = {
    "statuspage": STATUSPAGE,
    "feed": ATOM,
    "google-cloud": GOOGLE,
    "aws-health": AWS,
    "azure": AZURE,
    "instatus": INSTATUS,
    "better-stack": BETTER_STACK,
}
"""The pages by the format that reads them."""
