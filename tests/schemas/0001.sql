BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0001');
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
INSERT INTO "attempt" VALUES('20261126T173927.783018Z-7bwg',1,'2026-11-26T17:39:28.968794Z','2026-11-26T17:39:29.084957Z','succeeded',NULL,0,NULL);
INSERT INTO "attempt" VALUES('20261126T173931.817012Z-5221',1,'2026-11-26T17:39:32.690037Z','2026-11-26T17:39:32.762881Z','failed','{"code":"job_execution_failed","message":"sh exited with 3: no","blueprint_code":"blueprint_execution_failed","data":{"exit_code":3,"signal":null,"stdout_tail":"","stderr_tail":"no\n","stdout_bytes":0,"stderr_bytes":3,"truncated":false,"duration_seconds":0.03892,"left_behind":0,"cap_exceeded":null}}',0,NULL);
INSERT INTO "attempt" VALUES('20261126T173935.091529Z-ldmc',1,'2026-11-26T17:39:36.032008Z','2026-11-26T17:39:36.090210Z','succeeded',NULL,0,NULL);
CREATE TABLE event (
	sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	run_id VARCHAR NOT NULL, 
	n INTEGER NOT NULL, 
	ts TEXT NOT NULL, 
	name TEXT NOT NULL, 
	data TEXT NOT NULL
);
INSERT INTO "event" VALUES(1,'20261126T173927.783018Z-7bwg',1,'2026-11-26T17:39:27.782979Z','job_queued','{"trigger":{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:39:27.777782Z","by":"ada"},"spec_hash":"sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543","trace_id":"53844cbca3a0e38850070acc69f3ee43"}');
INSERT INTO "event" VALUES(2,'20261126T173927.783018Z-7bwg',2,'2026-11-26T17:39:28.968794Z','job_started','{"owner":"387a4272c9b8237f","pid":3138}');
INSERT INTO "event" VALUES(3,'20261126T173927.783018Z-7bwg',3,'2026-11-26T17:39:28.968794Z','job_attempt_started','{"attempt":1}');
INSERT INTO "event" VALUES(4,'20261126T173927.783018Z-7bwg',4,'2026-11-26T17:39:29.084957Z','job_attempt_succeeded','{"attempt":1}');
INSERT INTO "event" VALUES(5,'20261126T173927.783018Z-7bwg',5,'2026-11-26T17:39:29.084957Z','job_completed','{"status":"succeeded"}');
INSERT INTO "event" VALUES(6,'20261126T173931.817012Z-5221',1,'2026-11-26T17:39:31.816990Z','job_queued','{"trigger":{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:39:31.810005Z","by":"ada"},"spec_hash":"sha256:83c9f06e1a9ed0a362c4504d121508b5f87b5350ee555de62ef195be1481f731","trace_id":"efc6613ba74dca96f7587dea1287dd1b"}');
INSERT INTO "event" VALUES(7,'20261126T173931.817012Z-5221',2,'2026-11-26T17:39:32.690037Z','job_started','{"owner":"b5324159ad74cdf3","pid":3164}');
INSERT INTO "event" VALUES(8,'20261126T173931.817012Z-5221',3,'2026-11-26T17:39:32.690037Z','job_attempt_started','{"attempt":1}');
INSERT INTO "event" VALUES(9,'20261126T173931.817012Z-5221',4,'2026-11-26T17:39:32.762881Z','job_attempt_failed','{"attempt":1,"status":"failed","code":"job_execution_failed","message":"sh exited with 3: no","blueprint_code":"blueprint_execution_failed","will_retry":false}');
INSERT INTO "event" VALUES(10,'20261126T173931.817012Z-5221',5,'2026-11-26T17:39:32.762881Z','job_dead_lettered','{"code":"job_execution_failed","message":"sh exited with 3: no","blueprint_code":"blueprint_execution_failed","fingerprint":"281b2cd616b0","cause":"unknown"}');
INSERT INTO "event" VALUES(11,'20261126T173931.817012Z-5221',6,'2026-11-26T17:39:32.762881Z','job_failed','{"status":"failed","code":"job_execution_failed","message":"sh exited with 3: no","blueprint_code":"blueprint_execution_failed"}');
INSERT INTO "event" VALUES(12,'20261126T173935.091529Z-ldmc',1,'2026-11-26T17:39:35.091514Z','job_queued','{"trigger":{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:39:35.087818Z","by":"ada"},"spec_hash":"sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543","trace_id":"f95ad9b348f952256dbbb41410a9abd4"}');
INSERT INTO "event" VALUES(13,'20261126T173935.091529Z-ldmc',2,'2026-11-26T17:39:36.032008Z','job_started','{"owner":"9e74a7396d36503b","pid":3184}');
INSERT INTO "event" VALUES(14,'20261126T173935.091529Z-ldmc',3,'2026-11-26T17:39:36.032008Z','job_attempt_started','{"attempt":1}');
INSERT INTO "event" VALUES(15,'20261126T173935.091529Z-ldmc',4,'2026-11-26T17:39:36.090210Z','job_attempt_succeeded','{"attempt":1}');
INSERT INTO "event" VALUES(16,'20261126T173935.091529Z-ldmc',5,'2026-11-26T17:39:36.090210Z','job_completed','{"status":"succeeded"}');
INSERT INTO "event" VALUES(17,'20261126T173938.558931Z-2czf',1,'2026-11-26T17:39:38.558908Z','job_queued','{"trigger":{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:39:38.553408Z","by":"ada"},"spec_hash":"sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543","trace_id":"1d7137e2179a4e3e21ec0b7aa9de2ddc"}');
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
INSERT INTO "life" VALUES('387a4272c9b8237f','run',3138,229251,'35b92504-0a1f-4964-9eaa-4f547fa99048','host','0.1.0','2026-11-26T17:39:28.783500Z','2026-11-26T17:39:29.186807Z');
INSERT INTO "life" VALUES('b5324159ad74cdf3','run',3164,229734,'35b92504-0a1f-4964-9eaa-4f547fa99048','host','0.1.0','2026-11-26T17:39:32.539341Z','2026-11-26T17:39:32.859022Z');
INSERT INTO "life" VALUES('9e74a7396d36503b','run',3184,230069,'35b92504-0a1f-4964-9eaa-4f547fa99048','host','0.1.0','2026-11-26T17:39:35.883400Z','2026-11-26T17:39:36.212194Z');
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
	written INTEGER DEFAULT '0' NOT NULL, 
	PRIMARY KEY (run_id)
);
INSERT INTO "run" VALUES('20261126T173927.783018Z-7bwg','good','succeeded',2,'2026-11-26T17:39:27.782979Z','2026-11-26T17:39:27.782979Z','sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543',NULL,'{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:39:27.777782Z","by":"ada"}','{}','[]','53844cbca3a0e38850070acc69f3ee43','2026-11-26T17:39:28.968794Z','2026-11-26T17:39:29.084957Z',NULL,1,0,NULL,'{"target_version":"1.0.0","policy":{"needed":["process.exec"],"granted":["process.exec"],"decisions":{"process.exec":"allow"}},"limits":{"timeout_seconds":30.0},"lily_version":"0.1.0","r0_status":"ok","payload":{"exit_code":0,"signal":null,"stdout_tail":"hello\n","stderr_tail":"","stdout_bytes":6,"stderr_bytes":0,"truncated":false,"duration_seconds":0.060049,"left_behind":0},"references":[],"approvals_requested":[]}',5,NULL,'387a4272c9b8237f',3138,'host',1);
INSERT INTO "run" VALUES('20261126T173931.817012Z-5221','bad','failed',2,'2026-11-26T17:39:31.816990Z','2026-11-26T17:39:31.816990Z','sha256:83c9f06e1a9ed0a362c4504d121508b5f87b5350ee555de62ef195be1481f731',NULL,'{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:39:31.810005Z","by":"ada"}','{}','[]','efc6613ba74dca96f7587dea1287dd1b','2026-11-26T17:39:32.690037Z','2026-11-26T17:39:32.762881Z',NULL,1,0,'{"code":"job_execution_failed","message":"sh exited with 3: no","blueprint_code":"blueprint_execution_failed","data":{"exit_code":3,"signal":null,"stdout_tail":"","stderr_tail":"no\n","stdout_bytes":0,"stderr_bytes":3,"truncated":false,"duration_seconds":0.03892,"left_behind":0,"cap_exceeded":null}}','{"r0_status":"error","target_version":"1.0.0","policy":{"needed":["process.exec"],"granted":["process.exec"],"decisions":{"process.exec":"allow"}},"limits":{"timeout_seconds":30.0},"lily_version":"0.1.0"}',6,NULL,'b5324159ad74cdf3',3164,'host',1);
INSERT INTO "run" VALUES('20261126T173935.091529Z-ldmc','good','succeeded',2,'2026-11-26T17:39:35.091514Z','2026-11-26T17:39:35.091514Z','sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543',NULL,'{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:39:35.087818Z","by":"ada"}','{}','[]','f95ad9b348f952256dbbb41410a9abd4','2026-11-26T17:39:36.032008Z','2026-11-26T17:39:36.090210Z',NULL,1,0,NULL,'{"target_version":"1.0.0","policy":{"needed":["process.exec"],"granted":["process.exec"],"decisions":{"process.exec":"allow"}},"limits":{"timeout_seconds":30.0},"lily_version":"0.1.0","r0_status":"ok","payload":{"exit_code":0,"signal":null,"stdout_tail":"hello\n","stderr_tail":"","stdout_bytes":6,"stderr_bytes":0,"truncated":false,"duration_seconds":0.029026,"left_behind":0},"references":[],"approvals_requested":[]}',5,NULL,'9e74a7396d36503b',3184,'host',1);
INSERT INTO "run" VALUES('20261126T173938.558931Z-2czf','good','queued',2,'2026-11-26T17:39:38.558908Z','2026-11-26T17:39:38.558908Z','sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543',NULL,'{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:39:38.553408Z","by":"ada"}','{}','[]','1d7137e2179a4e3e21ec0b7aa9de2ddc',NULL,NULL,NULL,0,0,NULL,NULL,1,NULL,NULL,NULL,'',0);
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
CREATE INDEX run_queue ON run (status, priority, enqueued_at, run_id);
CREATE INDEX run_by_job ON run (job_id, run_id);
CREATE INDEX run_unwritten ON run (status, run_id) WHERE written = 0;
CREATE INDEX run_by_key ON run ("key") WHERE key is not null;
CREATE UNIQUE INDEX event_of_run ON event (run_id, n);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('event',17);
COMMIT;
