CREATE TABLE s (k integer PRIMARY KEY, v text);
CREATE TABLE t (id integer PRIMARY KEY, k integer, v text CHECK (v <> 'refused'));
INSERT INTO s VALUES (1, 'one'), (2, 'two'), (3, 'refused');
INSERT INTO t (id, k) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20)
  SELECT i, CASE WHEN i = 13 THEN 3 ELSE 1 + i % 2 END FROM n;
