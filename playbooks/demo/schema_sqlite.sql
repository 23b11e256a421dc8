-- The honeypot's session store after its migration v16 and before ADR-007: the tables, as far as SQLite has the means.
-- Arrays are JSON text, times are UTC text, foreign keys stand in the table and are checked on connections that ask for it.
CREATE TABLE schema_state (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE asn_inventory (
    asn_number INTEGER PRIMARY KEY CHECK (asn_number > 0),
    organization_name TEXT,
    organization_country VARCHAR(2),
    registry VARCHAR(16),
    asn_type TEXT,
    is_known_hosting BOOLEAN NOT NULL DEFAULT 0,
    is_known_vpn BOOLEAN NOT NULL DEFAULT 0,
    first_seen TIMESTAMP NOT NULL,
    last_seen TIMESTAMP NOT NULL,
    unique_ip_count INTEGER NOT NULL DEFAULT 0,
    total_session_count INTEGER NOT NULL DEFAULT 0,
    enrichment TEXT
);

CREATE TABLE ip_inventory (
    ip_address VARCHAR(45) NOT NULL PRIMARY KEY,
    current_asn INTEGER,
    asn_last_verified TIMESTAMP,
    first_seen TIMESTAMP NOT NULL,
    last_seen TIMESTAMP NOT NULL,
    session_count INTEGER NOT NULL DEFAULT 0,
    ip_types TEXT,                                      -- a JSON array; the first element has priority
    enrichment TEXT NOT NULL,
    enrichment_updated_at TIMESTAMP,
    enrichment_version VARCHAR(16),
    geo_country VARCHAR(2) GENERATED ALWAYS AS (        -- 'XX' means unknown
        upper(coalesce(
            json_extract(enrichment, '$.maxmind.country'),
            json_extract(enrichment, '$.cymru.country'),
            json_extract(enrichment, '$.dshield.ip.ascountry'),
            'XX'
        ))
    ) STORED,
    is_scanner BOOLEAN GENERATED ALWAYS AS (coalesce(json_extract(enrichment, '$.greynoise.noise'), 0)) STORED,
    is_bogon BOOLEAN GENERATED ALWAYS AS (coalesce(json_extract(enrichment, '$.validation.is_bogon'), 0)) STORED,
    CONSTRAINT fk_ip_current_asn FOREIGN KEY (current_asn) REFERENCES asn_inventory (asn_number)
);

CREATE TABLE session_summaries (
    session_id VARCHAR(64) NOT NULL PRIMARY KEY,
    source_ip VARCHAR(45),
    first_event_at TIMESTAMP,
    last_event_at TIMESTAMP,
    event_count INTEGER NOT NULL DEFAULT 0,
    command_count INTEGER NOT NULL DEFAULT 0,
    file_downloads INTEGER NOT NULL DEFAULT 0,
    login_attempts INTEGER NOT NULL DEFAULT 0,
    ssh_key_injections INTEGER NOT NULL DEFAULT 0,
    unique_ssh_keys INTEGER NOT NULL DEFAULT 0,
    vt_flagged BOOLEAN NOT NULL DEFAULT 0,
    dshield_flagged BOOLEAN NOT NULL DEFAULT 0,
    risk_score INTEGER,
    matcher VARCHAR(32),
    source_files TEXT,
    ssh_key_fingerprint VARCHAR(128),
    password_hash VARCHAR(64),
    command_signature TEXT,
    snapshot_asn INTEGER,
    snapshot_country VARCHAR(2),
    snapshot_ip_types TEXT,
    enrichment TEXT,
    enrichment_at TIMESTAMP,
    created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    CONSTRAINT snapshot_country_iso CHECK (snapshot_country IS NULL OR snapshot_country GLOB '[A-Z][A-Z]'),
    CONSTRAINT fk_session_source_ip FOREIGN KEY (source_ip) REFERENCES ip_inventory (ip_address)
);

CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    session_id VARCHAR(64) NOT NULL,
    shasum VARCHAR(64) NOT NULL,
    filename TEXT,
    file_size INTEGER
);

CREATE TABLE raw_events (
    id INTEGER PRIMARY KEY,
    session_id VARCHAR(64) NOT NULL,
    payload TEXT NOT NULL
);

-- after loading --
CREATE INDEX ix_files_session_id ON files (session_id);
CREATE INDEX ix_files_shasum ON files (shasum);
CREATE INDEX ix_raw_events_session_id ON raw_events (session_id);
CREATE INDEX ix_ip_inventory_current_asn ON ip_inventory (current_asn);
CREATE INDEX ix_ip_inventory_geo_country ON ip_inventory (geo_country);
CREATE INDEX ix_session_summaries_source_ip ON session_summaries (source_ip);
CREATE INDEX ix_session_summaries_first_event_at ON session_summaries (first_event_at);
CREATE INDEX ix_session_summaries_last_event_at ON session_summaries (last_event_at);
CREATE INDEX ix_session_summaries_flags ON session_summaries (vt_flagged, dshield_flagged);
CREATE INDEX ix_session_summaries_ssh_key_injections ON session_summaries (ssh_key_injections);
CREATE INDEX ix_session_summaries_snapshot_asn ON session_summaries (snapshot_asn);
CREATE INDEX ix_session_summaries_snapshot_country ON session_summaries (snapshot_country);
CREATE INDEX ix_session_summaries_ssh_key_fingerprint ON session_summaries (ssh_key_fingerprint);
CREATE INDEX ix_session_summaries_password_hash ON session_summaries (password_hash);
CREATE INDEX ix_session_summaries_command_signature ON session_summaries (command_signature);
ANALYZE;
