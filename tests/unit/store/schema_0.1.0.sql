-- Schema of the image database in sdlora 0.1.0, as SQLite keeps it. It never changes.
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE champion_history (
	id INTEGER NOT NULL,
	style VARCHAR NOT NULL,
	number INTEGER NOT NULL,
	kind VARCHAR NOT NULL,
	answer VARCHAR,
	version INTEGER NOT NULL,
	from_version INTEGER,
	to_version INTEGER,
	who VARCHAR NOT NULL,
	why VARCHAR NOT NULL,
	decided_at DATETIME NOT NULL,
	adapter_digest VARCHAR(64) NOT NULL,
	snapshot_digest VARCHAR(64),
	run_digest VARCHAR(64),
	duel_digest VARCHAR(64),
	decision_digest VARCHAR(64),
	train_count INTEGER,
	metric VARCHAR,
	score FLOAT,
	base_score FLOAT,
	CONSTRAINT pk_champion_history PRIMARY KEY (id),
	CONSTRAINT uq_champion_history_style_number UNIQUE (style, number)
);
CREATE TABLE fingerprints (
	id INTEGER NOT NULL,
	pixels_sha256 VARCHAR(64) NOT NULL,
	version INTEGER NOT NULL,
	hashes BLOB NOT NULL,
	aspect FLOAT NOT NULL,
	thumbnail BLOB NOT NULL,
	CONSTRAINT pk_fingerprints PRIMARY KEY (id),
	CONSTRAINT uq_fingerprints_pixels_sha256_version UNIQUE (pixels_sha256, version)
);
CREATE TABLE generations (
	id INTEGER NOT NULL,
	sha256 VARCHAR(64) NOT NULL,
	model_version VARCHAR NOT NULL,
	prompt VARCHAR NOT NULL,
	negative_prompt VARCHAR NOT NULL,
	seed BIGINT NOT NULL,
	steps INTEGER NOT NULL,
	guidance_scale FLOAT NOT NULL,
	generated_at DATETIME NOT NULL,
	CONSTRAINT pk_generations PRIMARY KEY (id),
	CONSTRAINT uq_generations UNIQUE (model_version, prompt, negative_prompt, seed, steps, guidance_scale)
);
CREATE TABLE ratings (
	id INTEGER NOT NULL,
	sha256 VARCHAR(64) NOT NULL,
	rater VARCHAR NOT NULL,
	stars INTEGER NOT NULL,
	why VARCHAR,
	rated_at DATETIME NOT NULL,
	withdrawn_at DATETIME,
	CONSTRAINT pk_ratings PRIMARY KEY (id)
);
CREATE TABLE datasets (
	id INTEGER NOT NULL,
	name VARCHAR NOT NULL,
	made_at DATETIME NOT NULL,
	deleted_at DATETIME,
	CONSTRAINT pk_datasets PRIMARY KEY (id),
	CONSTRAINT uq_datasets_name UNIQUE (name)
);
CREATE TABLE snapshots (
	id INTEGER NOT NULL,
	dataset_id INTEGER NOT NULL,
	digest VARCHAR(64) NOT NULL,
	parent_id INTEGER,
	made_at DATETIME NOT NULL,
	train_count INTEGER NOT NULL,
	held_out_count INTEGER NOT NULL,
	CONSTRAINT pk_snapshots PRIMARY KEY (id),
	CONSTRAINT fk_snapshots_dataset_id FOREIGN KEY(dataset_id) REFERENCES datasets (id),
	CONSTRAINT fk_snapshots_parent_id FOREIGN KEY(parent_id) REFERENCES snapshots (id),
	CONSTRAINT uq_snapshots_dataset_id_digest UNIQUE (dataset_id, digest)
);
CREATE TABLE sources (
	id INTEGER NOT NULL,
	dataset_id INTEGER NOT NULL,
	"key" VARCHAR(64) NOT NULL,
	name VARCHAR NOT NULL,
	CONSTRAINT pk_sources PRIMARY KEY (id),
	CONSTRAINT fk_sources_dataset_id FOREIGN KEY(dataset_id) REFERENCES datasets (id),
	CONSTRAINT uq_sources_dataset_id_key UNIQUE (dataset_id, "key")
);
CREATE TABLE images (
	id INTEGER NOT NULL,
	sha256 VARCHAR(64) NOT NULL,
	byte_size BIGINT NOT NULL,
	collected_at DATETIME NOT NULL,
	CONSTRAINT pk_images PRIMARY KEY (id),
	CONSTRAINT uq_images_sha256 UNIQUE (sha256)
);
CREATE TABLE takedowns (
	image_id INTEGER NOT NULL,
	why VARCHAR NOT NULL,
	who VARCHAR NOT NULL,
	made_at DATETIME NOT NULL,
	CONSTRAINT pk_takedowns PRIMARY KEY (image_id),
	CONSTRAINT fk_takedowns_image_id FOREIGN KEY(image_id) REFERENCES images (id)
);
CREATE TABLE decodings (
	id INTEGER NOT NULL,
	image_id INTEGER NOT NULL,
	background VARCHAR NOT NULL,
	decoded_as VARCHAR NOT NULL,
	format VARCHAR,
	width INTEGER,
	height INTEGER,
	problem VARCHAR,
	fingerprint_id INTEGER,
	CONSTRAINT pk_decodings PRIMARY KEY (id),
	CONSTRAINT fk_decodings_fingerprint_id FOREIGN KEY(fingerprint_id) REFERENCES fingerprints (id),
	CONSTRAINT fk_decodings_image_id FOREIGN KEY(image_id) REFERENCES images (id),
	CONSTRAINT uq_decodings_image_id_background UNIQUE (image_id, background)
);
CREATE TABLE scores (
	decoding_id INTEGER NOT NULL,
	name VARCHAR NOT NULL,
	version INTEGER NOT NULL,
	parameters VARCHAR(16) NOT NULL,
	score FLOAT NOT NULL,
	CONSTRAINT pk_scores PRIMARY KEY (decoding_id, name, version, parameters),
	CONSTRAINT fk_scores_decoding_id FOREIGN KEY(decoding_id) REFERENCES decodings (id)
);
CREATE TABLE members (
	id INTEGER NOT NULL,
	dataset_id INTEGER NOT NULL,
	image_id INTEGER NOT NULL,
	source VARCHAR,
	licence VARCHAR,
	added_at DATETIME NOT NULL,
	added_from VARCHAR,
	removed_at DATETIME,
	removed_by VARCHAR,
	decoding_id INTEGER,
	verdict VARCHAR,
	rejected_by VARCHAR,
	reason VARCHAR,
	copy_of_id INTEGER,
	rules VARCHAR(16),
	split VARCHAR,
	CONSTRAINT pk_members PRIMARY KEY (id),
	CONSTRAINT fk_members_copy_of_id FOREIGN KEY(copy_of_id) REFERENCES members (id),
	CONSTRAINT fk_members_dataset_id FOREIGN KEY(dataset_id) REFERENCES datasets (id),
	CONSTRAINT fk_members_decoding_id FOREIGN KEY(decoding_id) REFERENCES decodings (id),
	CONSTRAINT fk_members_image_id FOREIGN KEY(image_id) REFERENCES images (id),
	CONSTRAINT uq_members_image_id_dataset_id UNIQUE (image_id, dataset_id)
);
CREATE TABLE removed_files (
	id INTEGER NOT NULL,
	style VARCHAR NOT NULL,
	version INTEGER NOT NULL,
	why VARCHAR NOT NULL,
	removed_at DATETIME NOT NULL,
	CONSTRAINT pk_removed_files PRIMARY KEY (id),
	CONSTRAINT uq_removed_files_style_version UNIQUE (style, version)
);
CREATE TABLE unreferenced_blobs (
	sha256 VARCHAR(64) NOT NULL,
	CONSTRAINT pk_unreferenced_blobs PRIMARY KEY (sha256)
);
CREATE TABLE similar_pairs (
	first_id INTEGER NOT NULL,
	second_id INTEGER NOT NULL,
	difference FLOAT NOT NULL,
	CONSTRAINT pk_similar_pairs PRIMARY KEY (first_id, second_id),
	CONSTRAINT fk_similar_pairs_first_id FOREIGN KEY(first_id) REFERENCES fingerprints (id),
	CONSTRAINT fk_similar_pairs_second_id FOREIGN KEY(second_id) REFERENCES fingerprints (id)
);
CREATE TABLE versions (
	id INTEGER NOT NULL,
	name VARCHAR NOT NULL,
	number INTEGER NOT NULL,
	adapter_digest VARCHAR(64) NOT NULL,
	snapshot_id INTEGER,
	recorded_at DATETIME NOT NULL,
	CONSTRAINT pk_versions PRIMARY KEY (id),
	CONSTRAINT fk_versions_snapshot_id FOREIGN KEY(snapshot_id) REFERENCES snapshots (id),
	CONSTRAINT uq_versions_name_number UNIQUE (name, number)
);
CREATE TABLE rulings (
	member_id INTEGER NOT NULL,
	name VARCHAR NOT NULL,
	version INTEGER NOT NULL,
	score FLOAT,
	reason VARCHAR NOT NULL,
	CONSTRAINT pk_rulings PRIMARY KEY (member_id, name),
	CONSTRAINT fk_rulings_member_id FOREIGN KEY(member_id) REFERENCES members (id)
);
CREATE TABLE files (
	id INTEGER NOT NULL,
	source_id INTEGER NOT NULL,
	path VARCHAR NOT NULL,
	member_id INTEGER NOT NULL,
	byte_size BIGINT NOT NULL,
	stamp VARCHAR,
	caption_stamp VARCHAR,
	repeats INTEGER,
	CONSTRAINT pk_files PRIMARY KEY (id),
	CONSTRAINT fk_files_member_id FOREIGN KEY(member_id) REFERENCES members (id),
	CONSTRAINT fk_files_source_id FOREIGN KEY(source_id) REFERENCES sources (id),
	CONSTRAINT uq_files_source_id_path UNIQUE (source_id, path)
);
CREATE TABLE overrides (
	id INTEGER NOT NULL,
	member_id INTEGER NOT NULL,
	verdict VARCHAR NOT NULL,
	why VARCHAR NOT NULL,
	who VARCHAR NOT NULL,
	made_at DATETIME NOT NULL,
	withdrawn_at DATETIME,
	withdrawn_by VARCHAR,
	CONSTRAINT pk_overrides PRIMARY KEY (id),
	CONSTRAINT fk_overrides_member_id FOREIGN KEY(member_id) REFERENCES members (id)
);
CREATE TABLE snapshot_images (
	snapshot_id INTEGER NOT NULL,
	image_id INTEGER NOT NULL,
	split VARCHAR NOT NULL,
	captions JSON NOT NULL,
	background VARCHAR,
	mask VARCHAR(64),
	weight FLOAT,
	CONSTRAINT pk_snapshot_images PRIMARY KEY (snapshot_id, image_id),
	CONSTRAINT fk_snapshot_images_image_id FOREIGN KEY(image_id) REFERENCES images (id),
	CONSTRAINT fk_snapshot_images_snapshot_id FOREIGN KEY(snapshot_id) REFERENCES snapshots (id)
);
CREATE TABLE captions (
	id INTEGER NOT NULL,
	member_id INTEGER NOT NULL,
	source_id INTEGER,
	file_id INTEGER,
	position INTEGER NOT NULL,
	text VARCHAR NOT NULL,
	origin VARCHAR NOT NULL,
	CONSTRAINT pk_captions PRIMARY KEY (id),
	CONSTRAINT fk_captions_file_id FOREIGN KEY(file_id) REFERENCES files (id),
	CONSTRAINT fk_captions_member_id FOREIGN KEY(member_id) REFERENCES members (id),
	CONSTRAINT fk_captions_source_id FOREIGN KEY(source_id) REFERENCES sources (id),
	CONSTRAINT uq_captions_member_id_source_id_file_id_text UNIQUE (member_id, source_id, file_id, text)
);
CREATE TABLE masks (
	file_id INTEGER NOT NULL,
	path VARCHAR NOT NULL,
	sha256 VARCHAR(64),
	byte_size BIGINT,
	problem VARCHAR,
	CONSTRAINT pk_masks PRIMARY KEY (file_id),
	CONSTRAINT fk_masks_file_id FOREIGN KEY(file_id) REFERENCES files (id)
);
CREATE TABLE tickets (
	id INTEGER NOT NULL,
	style VARCHAR NOT NULL,
	dataset VARCHAR,
	what VARCHAR NOT NULL,
	asked_by VARCHAR NOT NULL,
	state VARCHAR NOT NULL,
	reason VARCHAR,
	run_digest VARCHAR(64),
	flow_run_id VARCHAR(36),
	machine VARCHAR NOT NULL,
	pid INTEGER NOT NULL,
	process_start VARCHAR NOT NULL,
	token VARCHAR(32) NOT NULL,
	heartbeats INTEGER NOT NULL,
	heartbeat_at DATETIME NOT NULL,
	device VARCHAR,
	cancelled_by VARCHAR,
	asked_at DATETIME NOT NULL,
	taken_at DATETIME,
	ended_at DATETIME,
	CONSTRAINT pk_tickets PRIMARY KEY (id)
);
CREATE TABLE style_records (
	style VARCHAR NOT NULL,
	precision VARCHAR,
	data_digest VARCHAR(64),
	snapshot_digest VARCHAR(64),
	dealt_with_at DATETIME,
	lesson_digest VARCHAR(64),
	run_digest VARCHAR(64),
	trainer INTEGER,
	CONSTRAINT pk_style_records PRIMARY KEY (style)
);
CREATE TABLE starts (
	id INTEGER NOT NULL,
	style VARCHAR NOT NULL,
	data_digest VARCHAR(64) NOT NULL,
	new_images INTEGER NOT NULL,
	why VARCHAR NOT NULL,
	"key" VARCHAR NOT NULL,
	state VARCHAR NOT NULL,
	flow_run_id VARCHAR(36),
	asked_at DATETIME NOT NULL,
	ended_at DATETIME,
	outcome VARCHAR,
	CONSTRAINT pk_starts PRIMARY KEY (id),
	CONSTRAINT uq_starts_key UNIQUE ("key")
);
CREATE INDEX ix_fingerprints_version_id_hashes ON fingerprints (version, id, hashes);
CREATE INDEX ix_generations_sha256 ON generations (sha256);
CREATE INDEX ix_ratings_sha256 ON ratings (sha256);
CREATE INDEX ix_decodings_fingerprint_id ON decodings (fingerprint_id);
CREATE INDEX ix_members_copy_of_id ON members (copy_of_id) WHERE copy_of_id IS NOT NULL;
CREATE INDEX ix_members_dataset_id_rules ON members (dataset_id, rules);
CREATE INDEX ix_members_dataset_id_verdict_rejected_by ON members (dataset_id, verdict, rejected_by);
CREATE INDEX ix_similar_pairs_difference ON similar_pairs (difference);
CREATE INDEX ix_similar_pairs_second_id ON similar_pairs (second_id);
CREATE INDEX ix_versions_snapshot_id ON versions (snapshot_id);
CREATE INDEX ix_files_member_id ON files (member_id);
CREATE INDEX ix_overrides_member_id ON overrides (member_id);
CREATE INDEX ix_snapshot_images_image_id ON snapshot_images (image_id);
CREATE INDEX ix_captions_file_id ON captions (file_id);
CREATE INDEX ix_captions_source_id ON captions (source_id);
CREATE INDEX ix_captions_text ON captions (text);
CREATE INDEX ix_masks_sha256 ON masks (sha256);
CREATE INDEX ix_tickets_state ON tickets (state);
CREATE INDEX ix_tickets_style_what ON tickets (style, what);
CREATE INDEX ix_starts_style ON starts (style);
INSERT INTO alembic_version VALUES ('r0001');
