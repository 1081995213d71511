-- A ledger as segmed 0.1.0 left it, schema version 1: two images done, one cut short.
BEGIN TRANSACTION;
CREATE TABLE not_images (place TEXT PRIMARY KEY, why TEXT NOT NULL, run INTEGER NOT NULL)
    WITHOUT ROWID;
INSERT INTO "not_images" VALUES('notes.txt','neither a volume nor a DICOM object',1);
CREATE TABLE places (place TEXT PRIMARY KEY, key TEXT NOT NULL, files INTEGER NOT NULL,
    run INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "places" VALUES('cut.nii.gz','8129c4447ecc8bc4e557300aab835bb9a9ce3b4056ae23178195c8b875866468',1,1);
INSERT INTO "places" VALUES('hippocampus_036.nii.gz','1e6236ac8ac4977e94ece2008686ae4cc1c9c391a38f5d53136eb60fa275a0de',1,1);
INSERT INTO "places" VALUES('hippocampus_102.nii.gz','13d7ec811a88df3c2caf95b9d82ac859ad9ab368b49a42435534e5499c92a70e',1,1);
CREATE TABLE runs (run INTEGER PRIMARY KEY, package TEXT NOT NULL, started REAL NOT NULL,
    ended REAL);
INSERT INTO "runs" VALUES(1,'74f84783b1e334fa889727ec95895428d4c7c0eb9b94a902ce3bfc7eb273e488',1.79557944205062627787e+09,1.79557944223190808297e+09);
CREATE TABLE studies (
    key TEXT PRIMARY KEY, content TEXT NOT NULL, package TEXT NOT NULL, settings TEXT NOT NULL,
    study TEXT NOT NULL, form TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending','running','done','failed','quarantined')),
    reason TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0, output TEXT, output_sha256 TEXT, delivered TEXT,
    seconds REAL NOT NULL DEFAULT 0, measures TEXT NOT NULL DEFAULT '{}',
    run INTEGER NOT NULL, worked INTEGER NOT NULL DEFAULT 0, updated REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO "studies" VALUES('13d7ec811a88df3c2caf95b9d82ac859ad9ab368b49a42435534e5499c92a70e','3d8ace437e586da70aa8486c79ac3dcfc9bf4ec5473fe0b158fef88c8aad1da9','74f84783b1e334fa889727ec95895428d4c7c0eb9b94a902ce3bfc7eb273e488','nifti','3d8ace437e586da7','nifti','done','','',1,'segmentations/3d8ace437e586da7-74f84783.nii.gz','b7ea991db9487deb6836f30d79937b74a20c73a4158c38d0fa320be42126fabf',NULL,8.870681800044621923e-02,'{"flags": ["border:anterior", "fragments:anterior", "border:posterior"], "intensity": [{"mean": 469.234250174824, "median": 463.78497314453125, "p01": 36.23320007324219, "p99": 840.6102905273438, "std": 218.90335931307004}], "shape": [36, 55, 32], "spacing_mm": [1.0, 1.0, 1.0], "volumes_ml": {"anterior": 21.229, "posterior": 40.155}}',1,1,1.79557944223040890697e+09);
INSERT INTO "studies" VALUES('1e6236ac8ac4977e94ece2008686ae4cc1c9c391a38f5d53136eb60fa275a0de','21a33e690e8af209dfc5881882269f8992fd37e27c9a13f8a68ff41759e2fe8b','74f84783b1e334fa889727ec95895428d4c7c0eb9b94a902ce3bfc7eb273e488','nifti','21a33e690e8af209','nifti','done','','',1,'segmentations/21a33e690e8af209-74f84783.nii.gz','f11b3b32e0ec4ad21fd57573f6ab56a42f263b079e863d8663ca4004e66d65d2',NULL,0.0906957459997102,'{"flags": ["border:anterior", "fragments:anterior", "border:posterior"], "intensity": [{"mean": 659.3576358618965, "median": 675.354248046875, "p01": 64.66157531738281, "p99": 1120.8006591796875, "std": 285.1313682729454}], "shape": [36, 47, 39], "spacing_mm": [1.0, 1.0, 1.0], "volumes_ml": {"anterior": 21.901, "posterior": 41.858000000000004}}',1,1,1.79557944216969227789e+09);
INSERT INTO "studies" VALUES('8129c4447ecc8bc4e557300aab835bb9a9ce3b4056ae23178195c8b875866468','230d95170396f30b0619c5ee9c4e450785e895e17b4be537a8cf65b824d9625a','74f84783b1e334fa889727ec95895428d4c7c0eb9b94a902ce3bfc7eb273e488','nifti','230d95170396f30b','nifti','quarantined','truncated','file 1 of 1: the file ends before its last voxel; fetch the file again',1,NULL,NULL,NULL,0.0,'{}',1,1,1.7955794420731065273e+09);
CREATE INDEX studies_by_content ON studies (content, settings);
CREATE INDEX studies_by_state ON studies (state);
CREATE INDEX places_by_key ON places (key);
COMMIT;
PRAGMA user_version = 1;
