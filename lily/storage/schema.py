"""The tables, the same on SQLite and PostgreSQL. Times are stamps (see `lily.clock.stamp`), structures are JSON text.

A change here needs a migration in `migrations/versions` and a new `HEAD`; new stores are made from here (`fresh`), without migrations.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

HEAD = "0008"

metadata = MetaData()

# Ids and stamps must sort by byte, whatever the collation of the database.
Bytewise = String().with_variant(String(collation="C"), "postgresql")
Sequence = BigInteger().with_variant(Integer(), "sqlite")

WORKER_PAUSE = "worker.pause"  # a key of `meta`: while it is there, no runs are taken

meta = Table(
    "meta",
    metadata,
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

life = Table(  # one row for each process that owned the workspace
    "life",
    metadata,
    Column("life", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("start_ticks", BigInteger),
    Column("boot", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", Text, nullable=False),
    Column("ended_at", Text),
)

spec = Table(  # each spec that ever ran, once
    "spec",
    metadata,
    Column("spec_hash", Text, primary_key=True),
    Column("body", Text, nullable=False),
)

run = Table(
    "run",
    metadata,
    Column("run_id", Bytewise, primary_key=True),
    Column("job_id", Bytewise, nullable=False),
    Column("status", Text, nullable=False),
    Column("priority", Integer, nullable=False),  # 0 critical .. 3 low
    Column("queued_at", Text, nullable=False),
    Column("enqueued_at", Bytewise, nullable=False),
    Column("spec_hash", Text, nullable=False),
    Column("key", Text),
    Column("trigger", Text, nullable=False),
    Column("lineage", Text, nullable=False),
    Column("approvals", Text, nullable=False),
    Column("trace_id", Text, nullable=False),
    Column("started_at", Text),
    Column("ended_at", Text),
    Column("next_attempt_at", Text),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("interruptions", Integer, nullable=False, server_default="0"),
    Column("error", Text),
    Column("result", Text),
    Column("events", Integer, nullable=False, server_default="0"),
    Column("cancel", Text),
    Column("owner", Text),
    Column("pid", Integer),
    Column("host", Text, nullable=False, server_default=""),
    Column("written", Integer, nullable=False, server_default="0"),
    Column("held", Integer, nullable=False, server_default="0"),  # 1: claimed by the scheduler, which has not given its word yet
    Column("retried_as", Bytewise),  # the run that was made of this one's dead letter
    Column("receipt_sha256", Text),  # of the receipt on disk; None: none yet, or one of version 1
    Column("previous_run_id", Bytewise),  # the link that this receipt has
    Column("previous_sha256", Text),
    Index("run_queue", "status", "priority", "enqueued_at", "run_id"),
    Index("run_by_job", "job_id", "run_id"),
    Index("run_unwritten", "status", "run_id"),  # where written = 0; saying so here would load both dialects
    Index("run_by_key", "key"),  # where key is not null
)

attempt = Table(
    "attempt",
    metadata,
    Column("run_id", Bytewise, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("started_at", Text, nullable=False),
    Column("ended_at", Text),
    Column("status", Text, nullable=False),
    Column("error", Text),
    Column("will_retry", Integer, nullable=False, server_default="0"),
    Column("next_attempt_at", Text),
)

event = Table(  # lifecycle events; `n` counts them within their run, `sequence` over all runs
    "event",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("run_id", Bytewise, nullable=False),
    Column("n", Integer, nullable=False),
    Column("ts", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("data", Text, nullable=False),
    Index("event_of_run", "run_id", "n", unique=True),
    sqlite_autoincrement=True,
)

step = Table(  # results that later attempts of the same run reuse
    "step",
    metadata,
    Column("run_id", Bytewise, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    Column("at", Text, nullable=False),
)

schedule = Table(  # one row for each job that ever had a trigger or a control
    "schedule",
    metadata,
    Column("job_id", Bytewise, primary_key=True),
    Column("state", Text, nullable=False, server_default="active"),
    Column("until", Text),
    Column("reason", Text, nullable=False, server_default=""),
    Column("by", Text, nullable=False, server_default=""),
    Column("changed_at", Text),  # by a person; None: never
    Column("set_id", Text),
    Column("settled", Bytewise, nullable=False),  # every window up to here has its row
    Column("spec_hash", Text),  # of the last good spec; None: there was none yet
)

trigger_version = Table(  # a trigger while it held: windows with since < at <= until are its own
    "trigger_version",
    metadata,
    Column("job_id", Bytewise, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("since", Bytewise, nullable=False),
    Column("until", Bytewise),
    Column("trigger", Text, nullable=False),
    Column("timezone", Text),
    Column("spec_hash", Text, nullable=False),
)

window = Table(  # what became of each window
    "window",
    metadata,
    Column("job_id", Bytewise, primary_key=True),
    Column("at", Bytewise, primary_key=True),
    Column("status", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("run_id", Bytewise),  # the run that it started, or the one that reports it as missed
    Column("into_at", Text),  # the window that ran in its place
    Column("code", Text, nullable=False, server_default=""),
    Column("recorded_at", Text, nullable=False),
)

control = Table(  # every change of a job's state by a person
    "control",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("job_id", Bytewise, nullable=False),
    Column("at", Bytewise, nullable=False),
    Column("state", Text, nullable=False),
    Column("until", Text),
    Column("reason", Text, nullable=False, server_default=""),
    Column("by", Text, nullable=False, server_default=""),
    Column("set_id", Text),
    Index("control_by_job", "job_id", "sequence"),
    sqlite_autoincrement=True,
)

dead_letter = Table(  # runs that failed for good and that nobody has dealt with yet
    "dead_letter",
    metadata,
    Column("run_id", Bytewise, primary_key=True),
    Column("job_id", Bytewise, nullable=False),
    Column("added_at", Bytewise, nullable=False),
    Column("code", Text, nullable=False),
    Column("reason", Text, nullable=False),  # the last error
    Column("attempts", Text, nullable=False),  # JSON: each attempt with its error, kept also when the run's rows are pruned
    Column("fingerprint", Text, nullable=False),
    Column("cause", Text, nullable=False),  # transient, parameters, resources, external, unknown
    Index("dead_letter_by_age", "added_at", "run_id"),
    Index("dead_letter_by_job", "job_id", "added_at", "run_id"),
    Index("dead_letter_by_cause", "cause", "added_at", "run_id"),
    Index("dead_letter_by_fingerprint", "fingerprint", "cause", "added_at", "run_id"),
)

approval_check = Table(  # the last look at a channel outside for a run that waits
    "approval_check",
    metadata,
    Column("run_id", Bytewise, primary_key=True),
    Column("checked_at", Text, nullable=False),
    Column("next_at", Text, nullable=False),
    Column("failures", Integer, nullable=False, server_default="0"),  # in a row
    Column("error", Text, nullable=False, server_default=""),
    Column("labels", Text, nullable=False, server_default="[]"),
)

tally = Table(  # how many runs there are in each status, kept in the transactions that change it
    "tally",
    metadata,
    Column("status", Text, primary_key=True),
    Column("runs", Integer, nullable=False),
)

audit = Table(  # what persons and programs changed: append-only, each row's digest over the row and the digest before it
    "audit",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("at", Bytewise, nullable=False),
    Column("action", Text, nullable=False),  # noun.verb: queue.set, run.cancel
    Column("object", Text, nullable=False),  # the id of what was changed; empty where there is only one
    Column("job_id", Bytewise, nullable=False, server_default=""),
    Column("actor", Text, nullable=False),
    Column("actor_kind", Text, nullable=False),  # cli, api, supervisor, scheduler
    Column("reason", Text, nullable=False, server_default=""),
    Column("request_id", Text, nullable=False, server_default=""),
    Column("trace_id", Text, nullable=False, server_default=""),
    Column("before", Text, nullable=False),  # JSON
    Column("after", Text, nullable=False),  # JSON
    Column("digest", Text, nullable=False),
    Index("audit_by_job", "job_id", "sequence"),
    Index("audit_by_actor", "actor", "sequence"),
    Index("audit_by_action", "action", "sequence"),
    Index("audit_by_time", "at", "sequence"),
    sqlite_autoincrement=True,
)

review = Table(  # each look at all jobs
    "review",
    metadata,
    Column("sequence", Sequence, primary_key=True, autoincrement=True),
    Column("at", Bytewise, nullable=False),
    Column("by", Text, nullable=False),  # the user whose command it was; of a run, its job
    Column("run_id", Bytewise),
    Column("jobs", Integer, nullable=False),
    Column("windows", BigInteger, nullable=False),  # compared with the ledger
    Column("unseen", Integer, nullable=False),  # jobs whose windows were not compared this time
    Column("opened", Integer, nullable=False),
    Column("reopened", Integer, nullable=False),
    Column("closed", Integer, nullable=False),
    sqlite_autoincrement=True,
)

finding = Table(  # what reviews found, at most one row of a kind for each job
    "finding",
    metadata,
    Column("job_id", Bytewise, primary_key=True),
    Column("kind", Bytewise, primary_key=True),
    Column("severity", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("since", Text, nullable=False),
    Column("evidence", Text, nullable=False),  # JSON
    Column("look", Text, nullable=False),
    Column("mend", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("found_at", Text, nullable=False),
    Column("closed_at", Bytewise),  # None: it is there
    Column("acked_at", Text),
    Column("acked_by", Text, nullable=False, server_default=""),
    Column("ack_reason", Text, nullable=False, server_default=""),
    Column("ack_until", Bytewise),
    Index("finding_by_close", "closed_at", "severity"),
)

receipt_head = Table(  # the last receipt of each job, which the next one will name
    "receipt_head",
    metadata,
    Column("job_id", Bytewise, primary_key=True),
    Column("run_id", Bytewise, nullable=False),
    Column("receipt_sha256", Text, nullable=False),
)

receipt_gone = Table(  # receipts that a link or a head still names, whose runs are no longer there
    "receipt_gone",
    metadata,
    Column("run_id", Bytewise, primary_key=True),
    Column("job_id", Bytewise, nullable=False),
    Column("receipt_sha256", Text, nullable=False),
    Column("why", Text, nullable=False),  # pruned, reset; lost: not found when history was rebuilt
)

alert_state = Table(  # final failures in a row, of jobs whose last run failed
    "alert_state",
    metadata,
    Column("job_id", Bytewise, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("since", Text, nullable=False),
    Column("last_at", Text, nullable=False),
    Column("run_id", Bytewise, nullable=False),  # of the last failure, as all that follows
    Column("trace_id", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("message", Text, nullable=False),  # redacted
    Column("alert_id", Sequence, nullable=False, server_default="0"),  # the newest alert of these failures; 0: none
    Column("verdict", Text, nullable=False, server_default=""),  # what came of the last failure
)

alert = Table(
    "alert",
    metadata,
    Column("alert_id", Sequence, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),  # failing, recovered
    Column("job_id", Bytewise, nullable=False),
    Column("run_id", Bytewise, nullable=False),
    Column("trace_id", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("since", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("message", Text, nullable=False),  # redacted
    Column("why", Text, nullable=False),
    Column("raised_at", Bytewise, nullable=False),
    Column("sent_at", Text),  # since when somebody has it; None: nobody
    Index("alert_by_error", "job_id", "fingerprint", "alert_id"),
    Index("alert_by_age", "raised_at", "alert_id"),
    sqlite_autoincrement=True,
)

alert_delivery = Table(  # what became of an alert at each sink
    "alert_delivery",
    metadata,
    Column("alert_id", Sequence, primary_key=True, autoincrement=False),
    Column("sink", Bytewise, primary_key=True),
    Column("job_id", Bytewise, nullable=False),
    Column("state", Text, nullable=False),  # waiting, delivered, given_up, dropped
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("next_at", Bytewise, nullable=False),
    Column("last_at", Text),
    Column("note", Text, nullable=False, server_default=""),  # why it stands as it does
    Column("log", Text, nullable=False, server_default="[]"),  # JSON: the last tries
    Index("alert_delivery_due", "state", "next_at", "alert_id"),
    Index("alert_delivery_in_order", "job_id", "sink", "alert_id"),
)

evaluation = Table(  # the last looks at each condition; the newest row of a job says what holds
    "evaluation",
    metadata,
    Column("job_id", Bytewise, primary_key=True),
    Column("at", Bytewise, primary_key=True),  # the window that asked for it
    Column("version", Integer, nullable=False),
    Column("predicate", Text, nullable=False),  # a digest of what was compared with what
    Column("result", Text, nullable=False),  # true, false, error
    Column("code", Text, nullable=False),
    Column("status", Text, nullable=False),  # what became of the window
    Column("held", Text, nullable=False),  # the last result that was no error, for the edge
    Column("since", Text, nullable=False),  # when the result began to be so
    Column("observed", Text, nullable=False),  # JSON
    Column("kind", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("evaluated_at", Text, nullable=False),
    Column("duration_us", BigInteger, nullable=False),
)
