-- The honeypot's session store at schema version 15, before its migration v16: the tables, as far as SQLite has the means.
-- Times are UTC text; foreign keys are checked on connections that ask for it.
CREATE TABLE schema_state (
    key VARCHAR(128) PRIMARY KEY,
    value VARCHAR(256) NOT NULL
);

CREATE TABLE session_summaries (
    session_id VARCHAR(64) NOT NULL PRIMARY KEY,
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
    enrichment TEXT,
    created_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP
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

CREATE TABLE password_tracking (
    id INTEGER PRIMARY KEY,
    password_hash VARCHAR(64) NOT NULL
);

CREATE TABLE password_session_usage (
    id INTEGER PRIMARY KEY,
    password_id INTEGER NOT NULL REFERENCES password_tracking (id) ON DELETE CASCADE,
    session_id VARCHAR(64) NOT NULL REFERENCES session_summaries (session_id),
    success BOOLEAN NOT NULL DEFAULT 0,
    CONSTRAINT uq_password_session UNIQUE (password_id, session_id)
);

CREATE TABLE longtail_detections (
    id INTEGER PRIMARY KEY,
    detection_type VARCHAR(32) NOT NULL
);

CREATE TABLE longtail_detection_sessions (
    detection_id INTEGER NOT NULL REFERENCES longtail_detections (id) ON DELETE CASCADE,
    session_id VARCHAR(64) NOT NULL REFERENCES session_summaries (session_id) ON DELETE CASCADE,
    PRIMARY KEY (detection_id, session_id)
);

INSERT INTO schema_state (key, value) VALUES ('schema_version', '15');

-- after loading --
CREATE INDEX ix_files_session_id ON files (session_id);
CREATE INDEX ix_files_shasum ON files (shasum);
CREATE INDEX ix_raw_events_session_id ON raw_events (session_id);
CREATE INDEX ix_session_summaries_first_event ON session_summaries (first_event_at);
CREATE INDEX ix_session_summaries_last_event ON session_summaries (last_event_at);
CREATE INDEX ix_session_summaries_flags ON session_summaries (vt_flagged, dshield_flagged);
CREATE INDEX ix_session_summaries_ssh_keys ON session_summaries (ssh_key_injections);
CREATE INDEX ix_password_tracking_hash ON password_tracking (password_hash);
CREATE INDEX ix_password_session_session ON password_session_usage (session_id);
CREATE INDEX ix_longtail_detection_sessions_session ON longtail_detection_sessions (session_id);
