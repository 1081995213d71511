-- A ledger as schema version 4 left it: two images done, one cut short and `quarantined`.
BEGIN TRANSACTION;
CREATE TABLE faulty (key TEXT NOT NULL, path TEXT NOT NULL, PRIMARY KEY (key, path)) WITHOUT ROWID;
INSERT INTO "faulty" VALUES('8129c4447ecc8bc4e557300aab835bb9a9ce3b4056ae23178195c8b875866468','/data/scans/cut.nii.gz');
CREATE TABLE inputs (key TEXT NOT NULL, place TEXT NOT NULL, root TEXT NOT NULL,
    uids TEXT NOT NULL, PRIMARY KEY (key, place)) WITHOUT ROWID;
INSERT INTO "inputs" VALUES('13d7ec811a88df3c2caf95b9d82ac859ad9ab368b49a42435534e5499c92a70e','hippocampus_102.nii.gz','/data/scans','');
INSERT INTO "inputs" VALUES('1e6236ac8ac4977e94ece2008686ae4cc1c9c391a38f5d53136eb60fa275a0de','hippocampus_036.nii.gz','/data/scans','');
INSERT INTO "inputs" VALUES('8129c4447ecc8bc4e557300aab835bb9a9ce3b4056ae23178195c8b875866468','cut.nii.gz','/data/scans','');
CREATE TABLE names (folded TEXT PRIMARY KEY, output TEXT NOT NULL, key TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "names" VALUES('segmentations/cut.nii.gz','segmentations/cut.nii.gz','8129c4447ecc8bc4e557300aab835bb9a9ce3b4056ae23178195c8b875866468');
INSERT INTO "names" VALUES('segmentations/hippocampus_036.nii.gz','segmentations/hippocampus_036.nii.gz','1e6236ac8ac4977e94ece2008686ae4cc1c9c391a38f5d53136eb60fa275a0de');
INSERT INTO "names" VALUES('segmentations/hippocampus_102.nii.gz','segmentations/hippocampus_102.nii.gz','13d7ec811a88df3c2caf95b9d82ac859ad9ab368b49a42435534e5499c92a70e');
CREATE TABLE not_images (place TEXT PRIMARY KEY, why TEXT NOT NULL, run INTEGER NOT NULL)
    WITHOUT ROWID;
INSERT INTO "not_images" VALUES('notes.txt','neither an image nor a DICOM object',1);
CREATE TABLE places (place TEXT PRIMARY KEY, key TEXT NOT NULL, files INTEGER NOT NULL,
    run INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "places" VALUES('cut.nii.gz','8129c4447ecc8bc4e557300aab835bb9a9ce3b4056ae23178195c8b875866468',1,1);
INSERT INTO "places" VALUES('hippocampus_036.nii.gz','1e6236ac8ac4977e94ece2008686ae4cc1c9c391a38f5d53136eb60fa275a0de',1,1);
INSERT INTO "places" VALUES('hippocampus_102.nii.gz','13d7ec811a88df3c2caf95b9d82ac859ad9ab368b49a42435534e5499c92a70e',1,1);
CREATE TABLE runs (run INTEGER PRIMARY KEY, package TEXT NOT NULL, started REAL NOT NULL,
    ended REAL, segmed TEXT NOT NULL DEFAULT '');
INSERT INTO "runs" VALUES(1,'74f84783b1e334fa889727ec95895428d4c7c0eb9b94a902ce3bfc7eb273e488',1.79584043177846169468e+09,1.79584043208182072637e+09,'0.1.0');
CREATE TABLE studies (
    key TEXT PRIMARY KEY, content TEXT NOT NULL, package TEXT NOT NULL, settings TEXT NOT NULL,
    study TEXT NOT NULL, form TEXT NOT NULL, state TEXT NOT NULL CHECK
    (state IN ('pending','running','done','failed','quarantined','replaced')),
    reason TEXT NOT NULL DEFAULT '', message TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0, output TEXT, output_sha256 TEXT, delivered TEXT,
    seconds REAL NOT NULL DEFAULT 0, measures TEXT NOT NULL DEFAULT '{}',
    run INTEGER NOT NULL, worked INTEGER NOT NULL DEFAULT 0, updated REAL NOT NULL
) WITHOUT ROWID;
INSERT INTO "studies" VALUES('13d7ec811a88df3c2caf95b9d82ac859ad9ab368b49a42435534e5499c92a70e','3d8ace437e586da70aa8486c79ac3dcfc9bf4ec5473fe0b158fef88c8aad1da9','74f84783b1e334fa889727ec95895428d4c7c0eb9b94a902ce3bfc7eb273e488','nifti','3d8ace437e586da7','nifti','done','','',1,'segmentations/hippocampus_102.nii.gz','9d9ccc6c923b1257dd4fb61a09d07667e902e4582edcf4b5ff55971ec82c185e',NULL,2.07124053005827590823e-01,'{"flags": ["border:anterior", "fragments:anterior", "border:posterior"], "intensity": [{"mean": 469.234250174824, "median": 463.78497314453125, "p01": 36.23320007324219, "p99": 840.6102905273438, "std": 218.90335931307004}], "notes": [], "shape": [36, 55, 32], "spacing_mm": [1.0, 1.0, 1.0], "volumes_ml": {"anterior": 21.229, "posterior": 40.155}}',1,1,1.7958404320808284282e+09);
INSERT INTO "studies" VALUES('1e6236ac8ac4977e94ece2008686ae4cc1c9c391a38f5d53136eb60fa275a0de','21a33e690e8af209dfc5881882269f8992fd37e27c9a13f8a68ff41759e2fe8b','74f84783b1e334fa889727ec95895428d4c7c0eb9b94a902ce3bfc7eb273e488','nifti','21a33e690e8af209','nifti','done','','',1,'segmentations/hippocampus_036.nii.gz','60c81f94e4d9210dd598a23c7c4e04e41da547469706adc14d0548e9d6d85cd5',NULL,2.2671353999976417981e-01,'{"flags": ["border:anterior", "fragments:anterior", "border:posterior"], "intensity": [{"mean": 659.3576358618965, "median": 675.354248046875, "p01": 64.66157531738281, "p99": 1120.8006591796875, "std": 285.1313682729454}], "notes": [], "shape": [36, 47, 39], "spacing_mm": [1.0, 1.0, 1.0], "volumes_ml": {"anterior": 21.901, "posterior": 41.858000000000004}}',1,1,1.79584043201636743549e+09);
INSERT INTO "studies" VALUES('8129c4447ecc8bc4e557300aab835bb9a9ce3b4056ae23178195c8b875866468','230d95170396f30b0619c5ee9c4e450785e895e17b4be537a8cf65b824d9625a','74f84783b1e334fa889727ec95895428d4c7c0eb9b94a902ce3bfc7eb273e488','nifti','230d95170396f30b','nifti','quarantined','truncated','file 1 of 1: the file ends before its last voxel; fetch the file again',1,NULL,NULL,NULL,0.0,'{}',1,1,1.79584043178440189367e+09);
CREATE TABLE versions (identity TEXT NOT NULL, key TEXT NOT NULL, first INTEGER NOT NULL,
    last INTEGER NOT NULL, PRIMARY KEY (identity, key)) WITHOUT ROWID;
INSERT INTO "versions" VALUES('87a0e192e0156112bad7dc6298ec7717dc50715694bd93ac168f53c04f003a8f','1e6236ac8ac4977e94ece2008686ae4cc1c9c391a38f5d53136eb60fa275a0de',1,1);
INSERT INTO "versions" VALUES('e54bd141e5ea70f1f6ea3f015174fe0be9c874dd077dcc24891ef48ea7d2af86','8129c4447ecc8bc4e557300aab835bb9a9ce3b4056ae23178195c8b875866468',1,1);
INSERT INTO "versions" VALUES('e852babe24022142b2c51dd63294f73cdf5c97b0b222a65cc31b52a7233b35e5','13d7ec811a88df3c2caf95b9d82ac859ad9ab368b49a42435534e5499c92a70e',1,1);
CREATE INDEX studies_by_content ON studies (content, settings);
CREATE INDEX studies_by_state ON studies (state);
CREATE INDEX places_by_key ON places (key);
CREATE INDEX versions_by_key ON versions (key);
COMMIT;
PRAGMA user_version = 4;
