-- The honeypot's migration from schema version 15 to 16, as far as SQLite has the means: keys and checks come with their
-- columns, arrays are JSON text, there is no BRIN, and
-- snapshot_ip_types stays NULL, since a text has no empty array. A line `--- PHASE NAME` begins a statement.

--- 1 add_source_ip
ALTER TABLE session_summaries ADD COLUMN source_ip VARCHAR(45)
    CONSTRAINT fk_session_source_ip REFERENCES ip_inventory (ip_address);
--- 1 fill_source_ip
UPDATE session_summaries SET source_ip = json_extract(enrichment, '$.dshield.ip.number') WHERE json_valid(enrichment);
--- 1 idx_session_source_ip
CREATE INDEX idx_session_source_ip ON session_summaries (source_ip);

--- 2 asn_inventory
CREATE TABLE asn_inventory (
    asn_number INTEGER PRIMARY KEY,
    organization_name TEXT,
    organization_country VARCHAR(2),
    rir_registry VARCHAR(10),
    asn_type TEXT,
    is_known_hosting BOOLEAN NOT NULL DEFAULT 0,
    is_known_vpn BOOLEAN NOT NULL DEFAULT 0,
    first_seen TIMESTAMP NOT NULL,
    last_seen TIMESTAMP NOT NULL,
    unique_ip_count INTEGER NOT NULL DEFAULT 0,
    total_session_count INTEGER NOT NULL DEFAULT 0,
    enrichment TEXT NOT NULL DEFAULT '{}',
    enrichment_updated_at TIMESTAMP,
    created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
);
--- 2 idx_asn_org_name
CREATE INDEX idx_asn_org_name ON asn_inventory (organization_name);
--- 2 idx_asn_type
CREATE INDEX idx_asn_type ON asn_inventory (asn_type);
--- 2 idx_asn_session_count
CREATE INDEX idx_asn_session_count ON asn_inventory (total_session_count DESC);
--- 2 fill_asn_inventory
INSERT OR IGNORE INTO asn_inventory (asn_number, first_seen, last_seen, unique_ip_count, total_session_count)
SELECT asn, min(first_event_at), max(last_event_at), count(DISTINCT source_ip), count(*)
FROM (
    SELECT CASE WHEN json_valid(enrichment) THEN json_extract(enrichment, '$.cymru.asn') END AS asn,
           first_event_at, last_event_at, source_ip
    FROM session_summaries
) AS said
WHERE asn > 0
GROUP BY asn;

--- 3 ip_inventory
CREATE TABLE ip_inventory (
    ip_address VARCHAR(45) NOT NULL PRIMARY KEY,
    current_asn INTEGER CONSTRAINT fk_ip_current_asn REFERENCES asn_inventory (asn_number),
    asn_last_verified TIMESTAMP,
    first_seen TIMESTAMP NOT NULL,
    last_seen TIMESTAMP NOT NULL,
    session_count INTEGER DEFAULT 1 CHECK (session_count >= 0),
    enrichment TEXT NOT NULL DEFAULT '{}',
    enrichment_updated_at TIMESTAMP,
    enrichment_version VARCHAR(20) DEFAULT '2.2',
    geo_country VARCHAR(2) GENERATED ALWAYS AS (        -- '' where a source says nothing, 'XX' where no source is there
        upper(coalesce(
            json_extract(enrichment, '$.maxmind.country'),
            json_extract(enrichment, '$.cymru.country'),
            json_extract(enrichment, '$.dshield.ip.ascountry'),
            'XX'
        ))
    ) STORED,
    ip_types TEXT DEFAULT '[]',                         -- a JSON array; the first element has priority
    is_scanner BOOLEAN GENERATED ALWAYS AS (coalesce(json_extract(enrichment, '$.greynoise.noise'), 0)) STORED,
    is_bogon BOOLEAN GENERATED ALWAYS AS (coalesce(json_extract(enrichment, '$.validation.is_bogon'), 0)) STORED,
    created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
);
--- 3 idx_ip_current_asn
CREATE INDEX idx_ip_current_asn ON ip_inventory (current_asn);
--- 3 idx_ip_geo_country
CREATE INDEX idx_ip_geo_country ON ip_inventory (geo_country);
--- 3 idx_ip_session_count
CREATE INDEX idx_ip_session_count ON ip_inventory (session_count DESC);
--- 3 idx_ip_enrichment_updated
CREATE INDEX idx_ip_enrichment_updated ON ip_inventory (enrichment_updated_at);
--- 3 fill_ip_inventory
INSERT OR IGNORE INTO ip_inventory (ip_address, first_seen, last_seen, session_count, current_asn, enrichment)
SELECT source_ip, first_seen, last_seen, session_count, json_extract(enrichment, '$.cymru.asn'), enrichment
FROM (
    SELECT source_ip, enrichment, row_number() OVER (PARTITION BY source_ip ORDER BY last_event_at DESC, session_id) AS place,
           min(first_event_at) OVER (PARTITION BY source_ip) AS first_seen,
           max(last_event_at) OVER (PARTITION BY source_ip) AS last_seen,
           count(*) OVER (PARTITION BY source_ip) AS session_count
    FROM session_summaries WHERE source_ip IS NOT NULL
) AS latest
WHERE place = 1;

--- 4 add_enrichment_at
ALTER TABLE session_summaries ADD COLUMN enrichment_at TIMESTAMP;
--- 4 add_snapshot_asn
ALTER TABLE session_summaries ADD COLUMN snapshot_asn INTEGER;
--- 4 add_snapshot_country
ALTER TABLE session_summaries ADD COLUMN snapshot_country VARCHAR(2)
    CONSTRAINT snapshot_country_iso CHECK (snapshot_country IS NULL OR snapshot_country GLOB '[A-Z][A-Z]');
--- 4 add_snapshot_ip_types
ALTER TABLE session_summaries ADD COLUMN snapshot_ip_types TEXT;
--- 4 fill_snapshots
UPDATE session_summaries SET
    enrichment_at = coalesce(
        CASE WHEN json_valid(enrichment) THEN datetime(json_extract(enrichment, '$.enriched_at')) END, created_at, last_event_at
    ),
    snapshot_asn = CASE WHEN json_valid(enrichment) THEN json_extract(enrichment, '$.cymru.asn') END,
    snapshot_country = CASE WHEN json_valid(enrichment) THEN
        upper(coalesce(json_extract(enrichment, '$.maxmind.country'), json_extract(enrichment, '$.cymru.country'))) END;
--- 4 idx_session_snapshot_asn
CREATE INDEX idx_session_snapshot_asn ON session_summaries (snapshot_asn);
--- 4 idx_session_snapshot_country
CREATE INDEX idx_session_snapshot_country ON session_summaries (snapshot_country);

--- 5 count_orphans
SELECT count(*) AS orphans FROM session_summaries AS s
WHERE source_ip IS NOT NULL AND NOT EXISTS (SELECT 1 FROM ip_inventory AS i WHERE i.ip_address = s.source_ip);
--- 5 schema_version
UPDATE schema_state SET value = '16' WHERE key = 'schema_version';
