-- The same on SQLite, where JSON is a text that may be broken off: such a row has no address, and fails nothing.
source.source_ip = coalesce(
    target.source_ip,
    CASE WHEN json_valid(target.enrichment) THEN target.enrichment -> 'session_metadata' ->> 'source_ip' END,
    CASE WHEN json_valid(target.enrichment) THEN target.enrichment -> 'dshield' -> 'ip' ->> 'number' END
)
