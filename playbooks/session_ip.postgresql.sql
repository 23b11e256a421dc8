-- A session's address: the stored one, else what the sensor saw, else what dshield said. NULL: nothing to go by.
source.source_ip = coalesce(
    target.source_ip,
    target.enrichment -> 'session_metadata' ->> 'source_ip',
    target.enrichment -> 'dshield' -> 'ip' ->> 'number'
)
