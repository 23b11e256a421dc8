-- The honeypot's migration from schema version 15 to 16, in its five phases. A line `--- PHASE NAME` begins a statement.
-- The project runs all of them in one transaction; a half-done v16 is what remains where they were committed one by one.

--- 1 add_source_ip
ALTER TABLE session_summaries ADD COLUMN source_ip varchar(45);
--- 1 fill_source_ip
UPDATE session_summaries SET source_ip = enrichment -> 'dshield' -> 'ip' ->> 'number'
WHERE source_ip IS NULL AND enrichment -> 'dshield' -> 'ip' ->> 'number' IS NOT NULL;
--- 1 idx_session_source_ip
CREATE INDEX idx_session_source_ip ON session_summaries (source_ip);

--- 2 asn_inventory
CREATE TABLE asn_inventory (
    asn_number serial PRIMARY KEY,
    organization_name text,
    organization_country varchar(2),
    rir_registry varchar(10),
    asn_type text,
    is_known_hosting boolean NOT NULL DEFAULT false,
    is_known_vpn boolean NOT NULL DEFAULT false,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    unique_ip_count integer NOT NULL DEFAULT 0,
    total_session_count integer NOT NULL DEFAULT 0,
    enrichment json NOT NULL DEFAULT '{}',
    enrichment_updated_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
--- 2 idx_asn_org_name
CREATE INDEX idx_asn_org_name ON asn_inventory (organization_name);
--- 2 idx_asn_type
CREATE INDEX idx_asn_type ON asn_inventory (asn_type);
--- 2 idx_asn_session_count
CREATE INDEX idx_asn_session_count ON asn_inventory (total_session_count DESC);
--- 2 fill_asn_inventory
INSERT INTO asn_inventory (asn_number, first_seen, last_seen, unique_ip_count, total_session_count)
SELECT asn, min(first_event_at) AT TIME ZONE 'UTC', max(last_event_at) AT TIME ZONE 'UTC', count(DISTINCT source_ip), count(*)
FROM (
    SELECT (enrichment -> 'cymru' ->> 'asn')::integer AS asn, first_event_at, last_event_at, source_ip
    FROM session_summaries
) AS said
WHERE asn > 0
GROUP BY asn
ON CONFLICT (asn_number) DO NOTHING;

--- 3 ip_inventory
CREATE TABLE ip_inventory (
    ip_address varchar(45) PRIMARY KEY,
    current_asn integer,
    asn_last_verified timestamptz,
    first_seen timestamptz NOT NULL,
    last_seen timestamptz NOT NULL,
    session_count integer DEFAULT 1 CHECK (session_count >= 0),
    enrichment jsonb NOT NULL DEFAULT '{}',
    enrichment_updated_at timestamptz,
    enrichment_version varchar(20) DEFAULT '2.2',
    geo_country varchar(2) GENERATED ALWAYS AS (        -- '' where a source says nothing, 'XX' where no source is there
        upper(coalesce(
            enrichment -> 'maxmind' ->> 'country',
            enrichment -> 'cymru' ->> 'country',
            enrichment -> 'dshield' -> 'ip' ->> 'ascountry',
            'XX'
        ))
    ) STORED,
    ip_types text[] DEFAULT '{}',                       -- the first element has priority; an enricher fills it
    is_scanner boolean GENERATED ALWAYS AS (coalesce((enrichment -> 'greynoise' ->> 'noise')::boolean, false)) STORED,
    is_bogon boolean GENERATED ALWAYS AS (coalesce((enrichment -> 'validation' ->> 'is_bogon')::boolean, false)) STORED,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
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
INSERT INTO ip_inventory (ip_address, first_seen, last_seen, session_count, current_asn, enrichment)
SELECT source_ip, first_seen AT TIME ZONE 'UTC', last_seen AT TIME ZONE 'UTC', session_count,
       (latest.enrichment -> 'cymru' ->> 'asn')::integer, latest.enrichment::jsonb
FROM (
    SELECT source_ip, min(first_event_at) AS first_seen, max(last_event_at) AS last_seen, count(*) AS session_count
    FROM session_summaries WHERE source_ip IS NOT NULL GROUP BY source_ip
) AS seen
JOIN (
    SELECT DISTINCT ON (source_ip) source_ip, session_id
    FROM session_summaries WHERE source_ip IS NOT NULL ORDER BY source_ip, last_event_at DESC, session_id
) AS last USING (source_ip)
JOIN session_summaries AS latest USING (session_id, source_ip)
ON CONFLICT (ip_address) DO NOTHING;

--- 4 add_enrichment_at
ALTER TABLE session_summaries ADD COLUMN enrichment_at timestamptz;
--- 4 add_snapshot_asn
ALTER TABLE session_summaries ADD COLUMN snapshot_asn integer;
--- 4 add_snapshot_country
ALTER TABLE session_summaries ADD COLUMN snapshot_country varchar(2);
--- 4 add_snapshot_ip_types
ALTER TABLE session_summaries ADD COLUMN snapshot_ip_types text[];
--- 4 timestamptz
ALTER TABLE session_summaries
    ALTER COLUMN first_event_at TYPE timestamptz USING first_event_at AT TIME ZONE 'UTC',
    ALTER COLUMN last_event_at TYPE timestamptz USING last_event_at AT TIME ZONE 'UTC';
--- 4 snapshot_country_iso
ALTER TABLE session_summaries
    ADD CONSTRAINT snapshot_country_iso CHECK (snapshot_country IS NULL OR snapshot_country ~ '^[A-Z]{2}$');
--- 4 fill_snapshots
UPDATE session_summaries SET
    enrichment_at = coalesce((enrichment ->> 'enriched_at')::timestamptz, created_at, last_event_at),
    snapshot_asn = (enrichment -> 'cymru' ->> 'asn')::integer,
    snapshot_country = upper(coalesce(enrichment -> 'maxmind' ->> 'country', enrichment -> 'cymru' ->> 'country')),
    snapshot_ip_types = '{}';
--- 4 idx_session_first_event_brin
CREATE INDEX idx_session_first_event_brin ON session_summaries USING brin (first_event_at);
--- 4 idx_session_last_event_brin
CREATE INDEX idx_session_last_event_brin ON session_summaries USING brin (last_event_at);
--- 4 idx_session_snapshot_asn
CREATE INDEX idx_session_snapshot_asn ON session_summaries (snapshot_asn);
--- 4 idx_session_snapshot_country
CREATE INDEX idx_session_snapshot_country ON session_summaries (snapshot_country);

--- 5 count_orphans
SELECT count(*) AS orphans FROM session_summaries AS s
WHERE source_ip IS NOT NULL AND NOT EXISTS (SELECT 1 FROM ip_inventory AS i WHERE i.ip_address = s.source_ip);
--- 5 fk_ip_current_asn
ALTER TABLE ip_inventory
    ADD CONSTRAINT fk_ip_current_asn FOREIGN KEY (current_asn) REFERENCES asn_inventory (asn_number) NOT VALID;
--- 5 fk_session_source_ip
ALTER TABLE session_summaries
    ADD CONSTRAINT fk_session_source_ip FOREIGN KEY (source_ip) REFERENCES ip_inventory (ip_address) NOT VALID;
--- 5 validate_fk_ip_current_asn
ALTER TABLE ip_inventory VALIDATE CONSTRAINT fk_ip_current_asn;
--- 5 validate_fk_session_source_ip
ALTER TABLE session_summaries VALIDATE CONSTRAINT fk_session_source_ip;
--- 5 schema_version
UPDATE schema_state SET value = '16' WHERE key = 'schema_version';
