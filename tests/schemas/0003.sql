BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0003');
CREATE TABLE approval_check (
	run_id VARCHAR NOT NULL, 
	checked_at TEXT NOT NULL, 
	next_at TEXT NOT NULL, 
	failures INTEGER DEFAULT '0' NOT NULL, 
	error TEXT DEFAULT '' NOT NULL, 
	labels TEXT DEFAULT '[]' NOT NULL, 
	PRIMARY KEY (run_id)
);
CREATE TABLE attempt (
	run_id VARCHAR NOT NULL, 
	number INTEGER NOT NULL, 
	started_at TEXT NOT NULL, 
	ended_at TEXT, 
	status TEXT NOT NULL, 
	error TEXT, 
	will_retry INTEGER DEFAULT '0' NOT NULL, 
	next_attempt_at TEXT, 
	PRIMARY KEY (run_id, number)
);
INSERT INTO "attempt" VALUES('20261126T174002.241535Z-llzz',1,'2026-11-26T17:40:02.727165Z','2026-11-26T17:40:02.762804Z','succeeded',NULL,0,NULL);
INSERT INTO "attempt" VALUES('20261126T174004.971682Z-ksau',1,'2026-11-26T17:40:05.652933Z','2026-11-26T17:40:05.692473Z','failed','{"code":"job_execution_failed","message":"sh exited with 3: no","blueprint_code":"blueprint_execution_failed","data":{"exit_code":3,"signal":null,"stdout_tail":"","stderr_tail":"no\n","stdout_bytes":0,"stderr_bytes":3,"truncated":false,"duration_seconds":0.025657,"left_behind":0,"cap_exceeded":null}}',0,NULL);
INSERT INTO "attempt" VALUES('20261126T174007.793304Z-fnqd',1,'2026-11-26T17:40:08.542800Z','2026-11-26T17:40:08.586975Z','succeeded',NULL,0,NULL);
CREATE TABLE audit (
	sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	at VARCHAR NOT NULL, 
	action TEXT NOT NULL, 
	object TEXT NOT NULL, 
	job_id VARCHAR DEFAULT '' NOT NULL, 
	actor TEXT NOT NULL, 
	actor_kind TEXT NOT NULL, 
	reason TEXT DEFAULT '' NOT NULL, 
	request_id TEXT DEFAULT '' NOT NULL, 
	trace_id TEXT DEFAULT '' NOT NULL, 
	"before" TEXT NOT NULL, 
	"after" TEXT NOT NULL, 
	digest TEXT NOT NULL
);
INSERT INTO "audit" VALUES(1,'2026-11-26T17:40:12.701953Z','job.pause','later','later','ada','cli','the summer','','','{"state":"active","until":null,"set_id":null}','{"state":"paused","until":null,"set_id":null}','25cfadff7820f01de548c78fb0a44fc693738c8dd7de40e33ae534232b0a4dbd');
CREATE TABLE control (
	sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	job_id VARCHAR NOT NULL, 
	at VARCHAR NOT NULL, 
	state TEXT NOT NULL, 
	until TEXT, 
	reason TEXT DEFAULT '' NOT NULL, 
	"by" TEXT DEFAULT '' NOT NULL, 
	set_id TEXT
);
INSERT INTO "control" VALUES(1,'later','2026-11-26T17:40:12.701953Z','paused',NULL,'the summer','ada',NULL);
CREATE TABLE dead_letter (
	run_id VARCHAR NOT NULL, 
	job_id VARCHAR NOT NULL, 
	added_at VARCHAR NOT NULL, 
	code TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	attempts TEXT NOT NULL, 
	fingerprint TEXT NOT NULL, 
	cause TEXT NOT NULL, 
	PRIMARY KEY (run_id)
);
INSERT INTO "dead_letter" VALUES('20261126T174004.971682Z-ksau','bad','2026-11-26T17:40:05.692473Z','job_execution_failed','sh exited with 3: no','[{"number":1,"started_at":"2026-11-26T17:40:05.652933Z","ended_at":"2026-11-26T17:40:05.692473Z","status":"failed","error":{"code":"job_execution_failed","message":"sh exited with 3: no","blueprint_code":"blueprint_execution_failed","data":{"exit_code":3,"signal":null,"stdout_tail":"","stderr_tail":"no\n","stdout_bytes":0,"stderr_bytes":3,"truncated":false,"duration_seconds":0.025657,"left_behind":0,"cap_exceeded":null}},"will_retry":false,"next_attempt_at":null}]','281b2cd616b0','unknown');
CREATE TABLE event (
	sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	run_id VARCHAR NOT NULL, 
	n INTEGER NOT NULL, 
	ts TEXT NOT NULL, 
	name TEXT NOT NULL, 
	data TEXT NOT NULL
);
INSERT INTO "event" VALUES(1,'20261126T174002.241535Z-llzz',1,'2026-11-26T17:40:02.241524Z','job_queued','{"trigger":{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:40:02.240569Z","by":"ada"},"spec_hash":"sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543","trace_id":"b17f3289e030bc58c2673b3d1a2e8e2d"}');
INSERT INTO "event" VALUES(2,'20261126T174002.241535Z-llzz',2,'2026-11-26T17:40:02.727165Z','job_started','{"owner":"6ffd351310ed5953","pid":3661}');
INSERT INTO "event" VALUES(3,'20261126T174002.241535Z-llzz',3,'2026-11-26T17:40:02.727165Z','job_attempt_started','{"attempt":1}');
INSERT INTO "event" VALUES(4,'20261126T174002.241535Z-llzz',4,'2026-11-26T17:40:02.762804Z','job_attempt_succeeded','{"attempt":1}');
INSERT INTO "event" VALUES(5,'20261126T174002.241535Z-llzz',5,'2026-11-26T17:40:02.762804Z','job_completed','{"status":"succeeded"}');
INSERT INTO "event" VALUES(6,'20261126T174004.971682Z-ksau',1,'2026-11-26T17:40:04.971660Z','job_queued','{"trigger":{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:40:04.967022Z","by":"ada"},"spec_hash":"sha256:83c9f06e1a9ed0a362c4504d121508b5f87b5350ee555de62ef195be1481f731","trace_id":"050c89124afd32dbd19c9ae7fdcaf3cc"}');
INSERT INTO "event" VALUES(7,'20261126T174004.971682Z-ksau',2,'2026-11-26T17:40:05.652933Z','job_started','{"owner":"8526697cbb7ae567","pid":3684}');
INSERT INTO "event" VALUES(8,'20261126T174004.971682Z-ksau',3,'2026-11-26T17:40:05.652933Z','job_attempt_started','{"attempt":1}');
INSERT INTO "event" VALUES(9,'20261126T174004.971682Z-ksau',4,'2026-11-26T17:40:05.692473Z','job_attempt_failed','{"attempt":1,"status":"failed","code":"job_execution_failed","message":"sh exited with 3: no","blueprint_code":"blueprint_execution_failed","will_retry":false}');
INSERT INTO "event" VALUES(10,'20261126T174004.971682Z-ksau',5,'2026-11-26T17:40:05.692473Z','job_dead_lettered','{"code":"job_execution_failed","message":"sh exited with 3: no","blueprint_code":"blueprint_execution_failed","fingerprint":"281b2cd616b0","cause":"unknown"}');
INSERT INTO "event" VALUES(11,'20261126T174004.971682Z-ksau',6,'2026-11-26T17:40:05.692473Z','job_failed','{"status":"failed","code":"job_execution_failed","message":"sh exited with 3: no","blueprint_code":"blueprint_execution_failed"}');
INSERT INTO "event" VALUES(12,'20261126T174007.793304Z-fnqd',1,'2026-11-26T17:40:07.793278Z','job_queued','{"trigger":{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:40:07.788256Z","by":"ada"},"spec_hash":"sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543","trace_id":"435fb4cf5e1c0fd6e14c6390f501df11"}');
INSERT INTO "event" VALUES(13,'20261126T174007.793304Z-fnqd',2,'2026-11-26T17:40:08.542800Z','job_started','{"owner":"19333c2f65e1abac","pid":3692}');
INSERT INTO "event" VALUES(14,'20261126T174007.793304Z-fnqd',3,'2026-11-26T17:40:08.542800Z','job_attempt_started','{"attempt":1}');
INSERT INTO "event" VALUES(15,'20261126T174007.793304Z-fnqd',4,'2026-11-26T17:40:08.586975Z','job_attempt_succeeded','{"attempt":1}');
INSERT INTO "event" VALUES(16,'20261126T174007.793304Z-fnqd',5,'2026-11-26T17:40:08.586975Z','job_completed','{"status":"succeeded"}');
INSERT INTO "event" VALUES(17,'20261126T174010.744689Z-iy2v',1,'2026-11-26T17:40:10.744662Z','job_queued','{"trigger":{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:40:10.737250Z","by":"ada"},"spec_hash":"sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543","trace_id":"490d268646e556931a997c138b0792bd"}');
CREATE TABLE life (
	life TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	pid INTEGER NOT NULL, 
	start_ticks BIGINT, 
	boot TEXT NOT NULL, 
	host TEXT NOT NULL, 
	version TEXT NOT NULL, 
	started_at TEXT NOT NULL, 
	ended_at TEXT, 
	PRIMARY KEY (life)
);
INSERT INTO "life" VALUES('6ffd351310ed5953','run',3661,232815,'35b92504-0a1f-4964-9eaa-4f547fa99048','host','0.1.0','2026-11-26T17:40:02.656128Z','2026-11-26T17:40:02.886928Z');
INSERT INTO "life" VALUES('8526697cbb7ae567','run',3684,233085,'35b92504-0a1f-4964-9eaa-4f547fa99048','host','0.1.0','2026-11-26T17:40:05.546723Z','2026-11-26T17:40:05.811753Z');
INSERT INTO "life" VALUES('19333c2f65e1abac','run',3692,233358,'35b92504-0a1f-4964-9eaa-4f547fa99048','host','0.1.0','2026-11-26T17:40:08.419319Z','2026-11-26T17:40:08.689800Z');
CREATE TABLE meta (
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('synced_through','16');
INSERT INTO "meta" VALUES('dead_letters','1');
CREATE TABLE run (
	run_id VARCHAR NOT NULL, 
	job_id VARCHAR NOT NULL, 
	status TEXT NOT NULL, 
	priority INTEGER NOT NULL, 
	queued_at TEXT NOT NULL, 
	enqueued_at VARCHAR NOT NULL, 
	spec_hash TEXT NOT NULL, 
	"key" TEXT, 
	"trigger" TEXT NOT NULL, 
	lineage TEXT NOT NULL, 
	approvals TEXT NOT NULL, 
	trace_id TEXT NOT NULL, 
	started_at TEXT, 
	ended_at TEXT, 
	next_attempt_at TEXT, 
	tries INTEGER DEFAULT '0' NOT NULL, 
	interruptions INTEGER DEFAULT '0' NOT NULL, 
	error TEXT, 
	result TEXT, 
	events INTEGER DEFAULT '0' NOT NULL, 
	cancel TEXT, 
	owner TEXT, 
	pid INTEGER, 
	host TEXT DEFAULT '' NOT NULL, 
	written INTEGER DEFAULT '0' NOT NULL, held INTEGER DEFAULT '0' NOT NULL, retried_as VARCHAR, 
	PRIMARY KEY (run_id)
);
INSERT INTO "run" VALUES('20261126T174002.241535Z-llzz','good','succeeded',2,'2026-11-26T17:40:02.241524Z','2026-11-26T17:40:02.241524Z','sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543',NULL,'{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:40:02.240569Z","by":"ada"}','{}','[]','b17f3289e030bc58c2673b3d1a2e8e2d','2026-11-26T17:40:02.727165Z','2026-11-26T17:40:02.762804Z',NULL,1,0,NULL,'{"target_version":"1.0.0","policy":{"needed":["process.exec"],"granted":["process.exec"],"decisions":{"process.exec":"allow"}},"limits":{"timeout_seconds":30.0},"lily_version":"0.1.0","r0_status":"ok","payload":{"exit_code":0,"signal":null,"stdout_tail":"hello\n","stderr_tail":"","stdout_bytes":6,"stderr_bytes":0,"truncated":false,"duration_seconds":0.010902,"left_behind":0},"references":[],"approvals_requested":[]}',5,NULL,'6ffd351310ed5953',3661,'host',1,0,NULL);
INSERT INTO "run" VALUES('20261126T174004.971682Z-ksau','bad','failed',2,'2026-11-26T17:40:04.971660Z','2026-11-26T17:40:04.971660Z','sha256:83c9f06e1a9ed0a362c4504d121508b5f87b5350ee555de62ef195be1481f731',NULL,'{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:40:04.967022Z","by":"ada"}','{}','[]','050c89124afd32dbd19c9ae7fdcaf3cc','2026-11-26T17:40:05.652933Z','2026-11-26T17:40:05.692473Z',NULL,1,0,'{"code":"job_execution_failed","message":"sh exited with 3: no","blueprint_code":"blueprint_execution_failed","data":{"exit_code":3,"signal":null,"stdout_tail":"","stderr_tail":"no\n","stdout_bytes":0,"stderr_bytes":3,"truncated":false,"duration_seconds":0.025657,"left_behind":0,"cap_exceeded":null}}','{"r0_status":"error","target_version":"1.0.0","policy":{"needed":["process.exec"],"granted":["process.exec"],"decisions":{"process.exec":"allow"}},"limits":{"timeout_seconds":30.0},"lily_version":"0.1.0"}',6,NULL,'8526697cbb7ae567',3684,'host',1,0,NULL);
INSERT INTO "run" VALUES('20261126T174007.793304Z-fnqd','good','succeeded',2,'2026-11-26T17:40:07.793278Z','2026-11-26T17:40:07.793278Z','sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543',NULL,'{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:40:07.788256Z","by":"ada"}','{}','[]','435fb4cf5e1c0fd6e14c6390f501df11','2026-11-26T17:40:08.542800Z','2026-11-26T17:40:08.586975Z',NULL,1,0,NULL,'{"target_version":"1.0.0","policy":{"needed":["process.exec"],"granted":["process.exec"],"decisions":{"process.exec":"allow"}},"limits":{"timeout_seconds":30.0},"lily_version":"0.1.0","r0_status":"ok","payload":{"exit_code":0,"signal":null,"stdout_tail":"hello\n","stderr_tail":"","stdout_bytes":6,"stderr_bytes":0,"truncated":false,"duration_seconds":0.027069,"left_behind":0},"references":[],"approvals_requested":[]}',5,NULL,'19333c2f65e1abac',3692,'host',1,0,NULL);
INSERT INTO "run" VALUES('20261126T174010.744689Z-iy2v','good','queued',2,'2026-11-26T17:40:10.744662Z','2026-11-26T17:40:10.744662Z','sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543',NULL,'{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:40:10.737250Z","by":"ada"}','{}','[]','490d268646e556931a997c138b0792bd',NULL,NULL,NULL,0,0,NULL,NULL,1,NULL,NULL,NULL,'',0,0,NULL);
CREATE TABLE schedule (
	job_id VARCHAR NOT NULL, 
	state TEXT DEFAULT 'active' NOT NULL, 
	until TEXT, 
	reason TEXT DEFAULT '' NOT NULL, 
	"by" TEXT DEFAULT '' NOT NULL, 
	changed_at TEXT, 
	set_id TEXT, 
	settled VARCHAR NOT NULL, 
	spec_hash TEXT, 
	PRIMARY KEY (job_id)
);
INSERT INTO "schedule" VALUES('later','paused',NULL,'the summer','ada','2026-11-26T17:40:12.701953Z',NULL,'2026-11-26T17:40:12.701953Z',NULL);
CREATE TABLE spec (
	spec_hash TEXT NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (spec_hash)
);
INSERT INTO "spec" VALUES('sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543','{"approval":null,"bindings":{"argv":["sh","-c","echo hello"]},"capabilities":["process.exec"],"id":"good","labels":{},"output":{"artifacts":[],"summary_format":"markdown"},"runtime":{"backoff":{"base_seconds":60.0,"jitter":0.0,"max_seconds":3600.0,"strategy":"exponential"},"cpu_seconds":null,"interrupt_max":3,"max_parallel_runs":1,"memory_mb":null,"priority":"normal","retry_max":0,"timeout_seconds":30.0},"target":{"id":"command.v1","input":{},"kind":"blueprint","version":null},"timezone":null,"title":"Job good","trigger":{"type":"manual"}}');
INSERT INTO "spec" VALUES('sha256:83c9f06e1a9ed0a362c4504d121508b5f87b5350ee555de62ef195be1481f731','{"approval":null,"bindings":{"argv":["sh","-c","echo no >&2; exit 3"]},"capabilities":["process.exec"],"id":"bad","labels":{},"output":{"artifacts":[],"summary_format":"markdown"},"runtime":{"backoff":{"base_seconds":60.0,"jitter":0.0,"max_seconds":3600.0,"strategy":"exponential"},"cpu_seconds":null,"interrupt_max":3,"max_parallel_runs":1,"memory_mb":null,"priority":"normal","retry_max":0,"timeout_seconds":30.0},"target":{"id":"command.v1","input":{},"kind":"blueprint","version":null},"timezone":null,"title":"Job bad","trigger":{"type":"manual"}}');
CREATE TABLE step (
	run_id VARCHAR NOT NULL, 
	name TEXT NOT NULL, 
	value TEXT NOT NULL, 
	at TEXT NOT NULL, 
	PRIMARY KEY (run_id, name)
);
CREATE TABLE tally (
	status TEXT NOT NULL, 
	runs INTEGER NOT NULL, 
	PRIMARY KEY (status)
);
INSERT INTO "tally" VALUES('queued',1);
INSERT INTO "tally" VALUES('running',0);
INSERT INTO "tally" VALUES('succeeded',2);
INSERT INTO "tally" VALUES('failed',1);
CREATE TABLE trigger_version (
	job_id VARCHAR NOT NULL, 
	number INTEGER NOT NULL, 
	since VARCHAR NOT NULL, 
	until VARCHAR, 
	"trigger" TEXT NOT NULL, 
	timezone TEXT, 
	spec_hash TEXT NOT NULL, 
	PRIMARY KEY (job_id, number)
);
CREATE TABLE window (
	job_id VARCHAR NOT NULL, 
	at VARCHAR NOT NULL, 
	status TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	run_id VARCHAR, 
	into_at TEXT, 
	code TEXT DEFAULT '' NOT NULL, 
	recorded_at TEXT NOT NULL, 
	PRIMARY KEY (job_id, at)
);
CREATE INDEX run_queue ON run (status, priority, enqueued_at, run_id);
CREATE INDEX run_by_job ON run (job_id, run_id);
CREATE INDEX run_unwritten ON run (status, run_id) WHERE written = 0;
CREATE INDEX run_by_key ON run ("key") WHERE key is not null;
CREATE UNIQUE INDEX event_of_run ON event (run_id, n);
CREATE INDEX control_by_job ON control (job_id, sequence);
CREATE INDEX dead_letter_by_age ON dead_letter (added_at, run_id);
CREATE INDEX dead_letter_by_job ON dead_letter (job_id, added_at, run_id);
CREATE INDEX dead_letter_by_cause ON dead_letter (cause, added_at, run_id);
CREATE INDEX dead_letter_by_fingerprint ON dead_letter (fingerprint, cause, added_at, run_id);
CREATE INDEX audit_by_job ON audit (job_id, sequence);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('audit',1);
INSERT INTO "sqlite_sequence" VALUES('control',1);
INSERT INTO "sqlite_sequence" VALUES('event',17);
COMMIT;
