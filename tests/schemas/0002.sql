BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0002');
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
INSERT INTO "attempt" VALUES('20261126T173945.810158Z-v15w',1,'2026-11-26T17:39:46.642845Z','2026-11-26T17:39:46.710927Z','succeeded',NULL,0,NULL);
INSERT INTO "attempt" VALUES('20261126T173949.031514Z-ne48',1,'2026-11-26T17:39:49.606747Z','2026-11-26T17:39:49.646756Z','failed','{"code":"job_execution_failed","message":"sh exited with 3: no","blueprint_code":"blueprint_execution_failed","data":{"exit_code":3,"signal":null,"stdout_tail":"","stderr_tail":"no\n","stdout_bytes":0,"stderr_bytes":3,"truncated":false,"duration_seconds":0.016312,"left_behind":0,"cap_exceeded":null}}',0,NULL);
INSERT INTO "attempt" VALUES('20261126T173951.304453Z-a4ff',1,'2026-11-26T17:39:51.918477Z','2026-11-26T17:39:51.956437Z','succeeded',NULL,0,NULL);
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
INSERT INTO "control" VALUES(1,'later','2026-11-26T17:39:56.023967Z','paused',NULL,'the summer','ada',NULL);
CREATE TABLE event (
	sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	run_id VARCHAR NOT NULL, 
	n INTEGER NOT NULL, 
	ts TEXT NOT NULL, 
	name TEXT NOT NULL, 
	data TEXT NOT NULL
);
INSERT INTO "event" VALUES(1,'20261126T173945.810158Z-v15w',1,'2026-11-26T17:39:45.810145Z','job_queued','{"trigger":{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:39:45.809107Z","by":"ada"},"spec_hash":"sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543","trace_id":"9b0bb9ec518eeca1754b4f6b6fe863e1"}');
INSERT INTO "event" VALUES(2,'20261126T173945.810158Z-v15w',2,'2026-11-26T17:39:46.642845Z','job_started','{"owner":"36f5150ff0724d98","pid":3239}');
INSERT INTO "event" VALUES(3,'20261126T173945.810158Z-v15w',3,'2026-11-26T17:39:46.642845Z','job_attempt_started','{"attempt":1}');
INSERT INTO "event" VALUES(4,'20261126T173945.810158Z-v15w',4,'2026-11-26T17:39:46.710927Z','job_attempt_succeeded','{"attempt":1}');
INSERT INTO "event" VALUES(5,'20261126T173945.810158Z-v15w',5,'2026-11-26T17:39:46.710927Z','job_completed','{"status":"succeeded"}');
INSERT INTO "event" VALUES(6,'20261126T173949.031514Z-ne48',1,'2026-11-26T17:39:49.031500Z','job_queued','{"trigger":{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:39:49.022177Z","by":"ada"},"spec_hash":"sha256:83c9f06e1a9ed0a362c4504d121508b5f87b5350ee555de62ef195be1481f731","trace_id":"06d1a3215b1f49830dc13695b9975152"}');
INSERT INTO "event" VALUES(7,'20261126T173949.031514Z-ne48',2,'2026-11-26T17:39:49.606747Z','job_started','{"owner":"b05668aa43f56f64","pid":3251}');
INSERT INTO "event" VALUES(8,'20261126T173949.031514Z-ne48',3,'2026-11-26T17:39:49.606747Z','job_attempt_started','{"attempt":1}');
INSERT INTO "event" VALUES(9,'20261126T173949.031514Z-ne48',4,'2026-11-26T17:39:49.646756Z','job_attempt_failed','{"attempt":1,"status":"failed","code":"job_execution_failed","message":"sh exited with 3: no","blueprint_code":"blueprint_execution_failed","will_retry":false}');
INSERT INTO "event" VALUES(10,'20261126T173949.031514Z-ne48',5,'2026-11-26T17:39:49.646756Z','job_dead_lettered','{"code":"job_execution_failed","message":"sh exited with 3: no","blueprint_code":"blueprint_execution_failed","fingerprint":"281b2cd616b0","cause":"unknown"}');
INSERT INTO "event" VALUES(11,'20261126T173949.031514Z-ne48',6,'2026-11-26T17:39:49.646756Z','job_failed','{"status":"failed","code":"job_execution_failed","message":"sh exited with 3: no","blueprint_code":"blueprint_execution_failed"}');
INSERT INTO "event" VALUES(12,'20261126T173951.304453Z-a4ff',1,'2026-11-26T17:39:51.304440Z','job_queued','{"trigger":{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:39:51.303247Z","by":"ada"},"spec_hash":"sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543","trace_id":"f9aa9fd0977566cdf47c5a4fb774a27a"}');
INSERT INTO "event" VALUES(13,'20261126T173951.304453Z-a4ff',2,'2026-11-26T17:39:51.918477Z','job_started','{"owner":"4d0e2e3c25276470","pid":3334}');
INSERT INTO "event" VALUES(14,'20261126T173951.304453Z-a4ff',3,'2026-11-26T17:39:51.918477Z','job_attempt_started','{"attempt":1}');
INSERT INTO "event" VALUES(15,'20261126T173951.304453Z-a4ff',4,'2026-11-26T17:39:51.956437Z','job_attempt_succeeded','{"attempt":1}');
INSERT INTO "event" VALUES(16,'20261126T173951.304453Z-a4ff',5,'2026-11-26T17:39:51.956437Z','job_completed','{"status":"succeeded"}');
INSERT INTO "event" VALUES(17,'20261126T173954.309130Z-0sxr',1,'2026-11-26T17:39:54.309112Z','job_queued','{"trigger":{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:39:54.307458Z","by":"ada"},"spec_hash":"sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543","trace_id":"e9380ed69a6a83bef69e0a55cca1099f"}');
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
INSERT INTO "life" VALUES('36f5150ff0724d98','run',3239,231106,'35b92504-0a1f-4964-9eaa-4f547fa99048','host','0.1.0','2026-11-26T17:39:46.495622Z','2026-11-26T17:39:46.823917Z');
INSERT INTO "life" VALUES('b05668aa43f56f64','run',3251,231490,'35b92504-0a1f-4964-9eaa-4f547fa99048','host','0.1.0','2026-11-26T17:39:49.515983Z','2026-11-26T17:39:49.754700Z');
INSERT INTO "life" VALUES('4d0e2e3c25276470','run',3334,231741,'35b92504-0a1f-4964-9eaa-4f547fa99048','host','0.1.0','2026-11-26T17:39:51.809594Z','2026-11-26T17:39:52.070850Z');
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
	written INTEGER DEFAULT '0' NOT NULL, held INTEGER DEFAULT '0' NOT NULL, 
	PRIMARY KEY (run_id)
);
INSERT INTO "run" VALUES('20261126T173945.810158Z-v15w','good','succeeded',2,'2026-11-26T17:39:45.810145Z','2026-11-26T17:39:45.810145Z','sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543',NULL,'{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:39:45.809107Z","by":"ada"}','{}','[]','9b0bb9ec518eeca1754b4f6b6fe863e1','2026-11-26T17:39:46.642845Z','2026-11-26T17:39:46.710927Z',NULL,1,0,NULL,'{"target_version":"1.0.0","policy":{"needed":["process.exec"],"granted":["process.exec"],"decisions":{"process.exec":"allow"}},"limits":{"timeout_seconds":30.0},"lily_version":"0.1.0","r0_status":"ok","payload":{"exit_code":0,"signal":null,"stdout_tail":"hello\n","stderr_tail":"","stdout_bytes":6,"stderr_bytes":0,"truncated":false,"duration_seconds":0.025915,"left_behind":0},"references":[],"approvals_requested":[]}',5,NULL,'36f5150ff0724d98',3239,'host',1,0);
INSERT INTO "run" VALUES('20261126T173949.031514Z-ne48','bad','failed',2,'2026-11-26T17:39:49.031500Z','2026-11-26T17:39:49.031500Z','sha256:83c9f06e1a9ed0a362c4504d121508b5f87b5350ee555de62ef195be1481f731',NULL,'{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:39:49.022177Z","by":"ada"}','{}','[]','06d1a3215b1f49830dc13695b9975152','2026-11-26T17:39:49.606747Z','2026-11-26T17:39:49.646756Z',NULL,1,0,'{"code":"job_execution_failed","message":"sh exited with 3: no","blueprint_code":"blueprint_execution_failed","data":{"exit_code":3,"signal":null,"stdout_tail":"","stderr_tail":"no\n","stdout_bytes":0,"stderr_bytes":3,"truncated":false,"duration_seconds":0.016312,"left_behind":0,"cap_exceeded":null}}','{"r0_status":"error","target_version":"1.0.0","policy":{"needed":["process.exec"],"granted":["process.exec"],"decisions":{"process.exec":"allow"}},"limits":{"timeout_seconds":30.0},"lily_version":"0.1.0"}',6,NULL,'b05668aa43f56f64',3251,'host',1,0);
INSERT INTO "run" VALUES('20261126T173951.304453Z-a4ff','good','succeeded',2,'2026-11-26T17:39:51.304440Z','2026-11-26T17:39:51.304440Z','sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543',NULL,'{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:39:51.303247Z","by":"ada"}','{}','[]','f9aa9fd0977566cdf47c5a4fb774a27a','2026-11-26T17:39:51.918477Z','2026-11-26T17:39:51.956437Z',NULL,1,0,NULL,'{"target_version":"1.0.0","policy":{"needed":["process.exec"],"granted":["process.exec"],"decisions":{"process.exec":"allow"}},"limits":{"timeout_seconds":30.0},"lily_version":"0.1.0","r0_status":"ok","payload":{"exit_code":0,"signal":null,"stdout_tail":"hello\n","stderr_tail":"","stdout_bytes":6,"stderr_bytes":0,"truncated":false,"duration_seconds":0.022887,"left_behind":0},"references":[],"approvals_requested":[]}',5,NULL,'4d0e2e3c25276470',3334,'host',1,0);
INSERT INTO "run" VALUES('20261126T173954.309130Z-0sxr','good','queued',2,'2026-11-26T17:39:54.309112Z','2026-11-26T17:39:54.309112Z','sha256:edd8a96b0a049905ccf15d2701c71d1fea470b90a7903fbbb723a43df089f543',NULL,'{"type":"manual","scheduled_for":null,"fired_at":"2026-11-26T17:39:54.307458Z","by":"ada"}','{}','[]','e9380ed69a6a83bef69e0a55cca1099f',NULL,NULL,NULL,0,0,NULL,NULL,1,NULL,NULL,NULL,'',0,0);
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
INSERT INTO "schedule" VALUES('later','paused',NULL,'the summer','ada','2026-11-26T17:39:56.023967Z',NULL,'2026-11-26T17:39:56.023967Z',NULL);
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
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('control',1);
INSERT INTO "sqlite_sequence" VALUES('event',17);
COMMIT;
