-- The books: what is billed of each day, by campaign. `weir-central bill --migrate` applies this file once, as the owner.
--
-- The rules are held here, and not only by the program that bills, so that what is done by hand is held to them too:
-- entries come with a run and balance with it, lines of a closed day stay, and nothing is ever updated. What an owner
-- or a superuser takes away (ALTER TABLE ... DISABLE TRIGGER) is his own doing.

CREATE SCHEMA billing;
COMMENT ON SCHEMA billing IS 'what weir-central bills, by day and campaign';

CREATE TABLE billing.migrations (
    number integer PRIMARY KEY,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE billing.migrations IS 'the files of deploy/postgres that were applied';

-- A reconciliation that was billed. The numbers of a day are in the order in which its runs were billed.
CREATE TABLE billing.runs (
    day date NOT NULL,
    number integer NOT NULL,
    name text NOT NULL UNIQUE,
    rules text NOT NULL,
    batches bigint NOT NULL CHECK (batches >= 0),
    report_sha256 text NOT NULL CHECK (report_sha256 ~ '^[0-9a-f]{64}$'),
    click_count bigint NOT NULL CHECK (click_count >= 0),
    gross bigint NOT NULL CHECK (gross >= click_count),
    net bigint NOT NULL CHECK (net BETWEEN 0 AND click_count),
    cost_micros bigint NOT NULL CHECK (cost_micros >= 0),
    made_at timestamptz NOT NULL,
    made_by text NOT NULL,
    transaction xid8 NOT NULL,
    PRIMARY KEY (day, number),
    CHECK (starts_with(name, day::text || '/'))
);
COMMENT ON TABLE billing.runs IS 'reconciliations that were billed, with the figures of their day; reports are in the archive under _billed/';

CREATE TABLE billing.lines (
    day date NOT NULL,
    campaign bigint NOT NULL CHECK (campaign BETWEEN 0 AND 4294967295),
    run integer NOT NULL,
    click_count bigint NOT NULL CHECK (click_count >= 0),
    gross bigint NOT NULL CHECK (gross >= click_count),
    net bigint NOT NULL CHECK (net BETWEEN 0 AND click_count),
    cost_micros bigint NOT NULL CHECK (cost_micros >= 0),
    PRIMARY KEY (day, campaign),
    FOREIGN KEY (day, run) REFERENCES billing.runs (day, number)
);
COMMENT ON TABLE billing.lines IS 'what a campaign came to on a day; final once the day is closed';

CREATE TABLE billing.days (
    day date PRIMARY KEY,
    run integer NOT NULL,
    closed_at timestamptz NOT NULL,
    closed_by text NOT NULL,
    FOREIGN KEY (day, run) REFERENCES billing.runs (day, number)
);
COMMENT ON TABLE billing.days IS 'closed days, and the run that their lines are of';

CREATE TABLE billing.adjustments (
    day date NOT NULL,
    run integer NOT NULL,
    campaign bigint NOT NULL CHECK (campaign BETWEEN 0 AND 4294967295),
    cause text NOT NULL CHECK (cause IN ('recorded', 'late', 'cross_node_duplicate', 'cross_node_repeat',
                                         'rule_change', 'consequence', 'unknown')),
    click_count bigint NOT NULL,
    gross bigint NOT NULL,
    net bigint NOT NULL,
    cost_micros bigint NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (day, run, campaign, cause),
    FOREIGN KEY (day, run) REFERENCES billing.runs (day, number),
    CHECK ((click_count, gross, net, cost_micros) <> (0, 0, 0, 0))
);
COMMENT ON TABLE billing.adjustments IS 'what a run added to a closed day, or took from it, and why';

-- One transaction at a time works on a day. What it then reads must be what others have left, and so no older snapshot.
CREATE FUNCTION billing.take(of_day date) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the books are written in read committed, not in %', current_setting('transaction_isolation')
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    -- "weir" as a number, for other programs take locks as well.
    PERFORM pg_advisory_xact_lock(2003134834, of_day - date '2000-01-01');
END $$;

CREATE FUNCTION billing.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of billing.% is refused: books are corrected by adjustments, which a run adds', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER stays BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.runs
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse();
CREATE TRIGGER stays BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.days
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse();
CREATE TRIGGER stays BEFORE UPDATE OR DELETE OR TRUNCATE ON billing.adjustments
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse();
-- Lines of an open day are replaced: deleted and inserted.
CREATE TRIGGER stays BEFORE UPDATE OR TRUNCATE ON billing.lines
    FOR EACH STATEMENT EXECUTE FUNCTION billing.refuse();

CREATE FUNCTION billing.begin_run() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last record;
BEGIN
    PERFORM billing.take(NEW.day);
    SELECT coalesce(max(number), 0) AS number, coalesce(max(batches), 0) AS batches INTO last
        FROM billing.runs WHERE day = NEW.day;
    IF NEW.batches < last.batches THEN
        RAISE EXCEPTION 'a run over % batches is out of date: % were billed', NEW.batches, last.batches
            USING ERRCODE = 'restrict_violation';
    END IF;
    NEW.number := last.number + 1;
    NEW.made_at := now();
    NEW.made_by := session_user;
    NEW.transaction := pg_current_xact_id();
    RETURN NEW;
END $$;

CREATE TRIGGER begins BEFORE INSERT ON billing.runs FOR EACH ROW EXECUTE FUNCTION billing.begin_run();

-- Whoever entered a run entered all of it, and nothing else.
CREATE FUNCTION billing.balance() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    books record;
BEGIN
    SELECT coalesce(sum(click_count), 0) AS click_count, coalesce(sum(gross), 0) AS gross,
           coalesce(sum(net), 0) AS net, coalesce(sum(cost_micros), 0) AS cost_micros,
           coalesce(bool_or(is_negative), false) AS is_negative
        INTO books
        FROM (SELECT sum(click_count) AS click_count, sum(gross) AS gross, sum(net) AS net,
                     sum(cost_micros) AS cost_micros,
                     least(sum(click_count), sum(gross), sum(net), sum(cost_micros)) < 0 AS is_negative
                FROM (SELECT campaign, click_count, gross, net, cost_micros FROM billing.lines
                          WHERE day = NEW.day
                      UNION ALL
                      SELECT campaign, click_count, gross, net, cost_micros FROM billing.adjustments
                          WHERE day = NEW.day) AS entries
                GROUP BY campaign) AS campaigns;
    IF books.is_negative
        OR (books.click_count, books.gross, books.net, books.cost_micros)
            <> (NEW.click_count, NEW.gross, NEW.net, NEW.cost_micros)
    THEN
        RAISE EXCEPTION 'the books of % do not balance with the run %', NEW.day, NEW.name
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER balances AFTER INSERT ON billing.runs DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION billing.balance();

-- Entries come and go with a run of the same transaction: lines while the day is open, adjustments once it is closed.
CREATE FUNCTION billing.guard() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    of_day date;
BEGIN
    FOR of_day IN SELECT DISTINCT day FROM touched LOOP
        PERFORM billing.take(of_day);
        IF EXISTS (SELECT FROM billing.days WHERE day = of_day) <> (TG_TABLE_NAME = 'adjustments') THEN
            RAISE EXCEPTION '% of billing.% is refused: lines are those of an open day, adjustments those of a closed one, '
                'and % is not such a day', TG_OP, TG_TABLE_NAME, of_day USING ERRCODE = 'restrict_violation';
        END IF;
        IF NOT EXISTS (SELECT FROM billing.runs WHERE day = of_day AND transaction = pg_current_xact_id()) THEN
            RAISE EXCEPTION '% of billing.% is refused: entries change with a run, in one transaction', TG_OP, TG_TABLE_NAME
                USING ERRCODE = 'restrict_violation';
        END IF;
    END LOOP;
    IF TG_OP = 'INSERT' AND EXISTS (SELECT FROM touched JOIN billing.runs ON (runs.day, number) = (touched.day, run)
                                    WHERE transaction <> pg_current_xact_id()) THEN
        RAISE EXCEPTION '% of billing.% is refused: an entry is of the run it comes with', TG_OP, TG_TABLE_NAME
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER comes AFTER INSERT ON billing.lines REFERENCING NEW TABLE AS touched
    FOR EACH STATEMENT EXECUTE FUNCTION billing.guard();
CREATE TRIGGER goes AFTER DELETE ON billing.lines REFERENCING OLD TABLE AS touched
    FOR EACH STATEMENT EXECUTE FUNCTION billing.guard();
CREATE TRIGGER comes AFTER INSERT ON billing.adjustments REFERENCING NEW TABLE AS touched
    FOR EACH STATEMENT EXECUTE FUNCTION billing.guard();

CREATE FUNCTION billing.close() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM billing.take(NEW.day);
    IF NEW.run IS DISTINCT FROM (SELECT max(number) FROM billing.runs WHERE day = NEW.day) THEN
        RAISE EXCEPTION '% is closed with its last run, and % is another', NEW.day, NEW.run
            USING ERRCODE = 'restrict_violation';
    END IF;
    NEW.closed_at := now();
    NEW.closed_by := session_user;
    RETURN NEW;
END $$;

CREATE TRIGGER closes BEFORE INSERT ON billing.days FOR EACH ROW EXECUTE FUNCTION billing.close();

-- What holds: lines and adjustments together. A sum that has no room is an error, for bigint does not wrap.
CREATE VIEW billing.bills AS
    SELECT day, campaign,
           sum(click_count)::bigint AS click_count, sum(gross)::bigint AS gross,
           sum(net)::bigint AS net, sum(cost_micros)::bigint AS cost_micros,
           sum(adjustments)::bigint AS adjustments,
           sum(click_count * adjustments)::bigint AS adjusted_click_count,
           sum(gross * adjustments)::bigint AS adjusted_gross,
           sum(net * adjustments)::bigint AS adjusted_net,
           sum(cost_micros * adjustments)::bigint AS adjusted_cost_micros
    FROM (SELECT day, campaign, click_count, gross, net, cost_micros, 0 AS adjustments FROM billing.lines
          UNION ALL
          SELECT day, campaign, click_count, gross, net, cost_micros, 1 FROM billing.adjustments) AS entries
    GROUP BY day, campaign;
COMMENT ON VIEW billing.bills IS 'what is billed: lines with their adjustments';

-- Roles are those of the whole server, so another database may have made them.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'billing_writer') THEN
        CREATE ROLE billing_writer NOLOGIN;
    END IF;
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'billing_reader') THEN
        CREATE ROLE billing_reader NOLOGIN;
    END IF;
END $$;

GRANT USAGE ON SCHEMA billing TO billing_writer, billing_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA billing TO billing_writer, billing_reader;
GRANT INSERT (day, name, rules, batches, report_sha256, click_count, gross, net, cost_micros)
    ON billing.runs TO billing_writer;
GRANT INSERT, DELETE ON billing.lines TO billing_writer;
GRANT INSERT (day, run) ON billing.days TO billing_writer;
GRANT INSERT (day, run, campaign, cause, click_count, gross, net, cost_micros)
    ON billing.adjustments TO billing_writer;
