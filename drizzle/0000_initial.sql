CREATE TABLE "container_events" (
	"id" bigserial PRIMARY KEY NOT NULL,
	"container_id" text NOT NULL,
	"workspace_id" uuid NOT NULL,
	"at" timestamp (3) with time zone NOT NULL,
	"kind" text NOT NULL,
	"message" text NOT NULL,
	"fields" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "containers" (
	"id" text PRIMARY KEY NOT NULL,
	"workspace_id" uuid NOT NULL,
	"image_id" text NOT NULL,
	"reference" text NOT NULL,
	"state" text NOT NULL,
	"attempt" integer DEFAULT 1 NOT NULL,
	"worker_id" text,
	"spec" jsonb NOT NULL,
	"cpu_millis" integer DEFAULT 0 NOT NULL,
	"memory_bytes" bigint DEFAULT 0 NOT NULL,
	"exit_code" integer,
	"signal" text,
	"oom_killed" boolean DEFAULT false NOT NULL,
	"reason" text,
	"phases" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"transfer" jsonb,
	"started_at" timestamp (3) with time zone,
	"finished_at" timestamp (3) with time zone,
	"claimed_by" text,
	"lease_until" timestamp (3) with time zone,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "image_layers" (
	"image_id" text NOT NULL,
	"position" integer NOT NULL,
	"digest" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "image_layers_pk" PRIMARY KEY("image_id","position")
);
--> statement-breakpoint
CREATE TABLE "image_references" (
	"workspace_id" uuid NOT NULL,
	"reference" text NOT NULL,
	"platform" text NOT NULL,
	"image_id" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "image_references_pk" PRIMARY KEY("workspace_id","reference","platform")
);
--> statement-breakpoint
CREATE TABLE "images" (
	"id" text PRIMARY KEY NOT NULL,
	"workspace_id" uuid NOT NULL,
	"registry" text NOT NULL,
	"repository" text NOT NULL,
	"reference" text NOT NULL,
	"manifest_digest" text NOT NULL,
	"config_digest" text NOT NULL,
	"platform" text NOT NULL,
	"credential_secret_name" varchar(255),
	"credential_secret_id" varchar(36),
	"index_sha256" text,
	"size_bytes" bigint NOT NULL,
	"inodes" bigint NOT NULL,
	"status" text NOT NULL,
	"failure" text,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "layers" (
	"digest" text PRIMARY KEY NOT NULL,
	"media_type" text NOT NULL,
	"size_bytes" bigint NOT NULL,
	"tar_size_bytes" bigint NOT NULL,
	"blob_size_bytes" bigint NOT NULL,
	"entries" bigint NOT NULL,
	"span_sha256" text NOT NULL,
	"span_size_bytes" bigint NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "secret_versions" (
	"secret_id" uuid NOT NULL,
	"version" integer NOT NULL,
	"key_id" text NOT NULL,
	"wrapped_data_key" "bytea" NOT NULL,
	"nonce" "bytea" NOT NULL,
	"ciphertext" "bytea" NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "secret_versions_pk" PRIMARY KEY("secret_id","version")
);
--> statement-breakpoint
CREATE TABLE "secrets" (
	"id" uuid PRIMARY KEY NOT NULL,
	"workspace_id" uuid NOT NULL,
	"name" varchar(255) NOT NULL,
	"registry" text NOT NULL,
	"credential_type" text NOT NULL,
	"principal" text NOT NULL,
	"current_version" integer NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "secrets_workspace_name" UNIQUE("workspace_id","name")
);
--> statement-breakpoint
CREATE TABLE "tokens" (
	"id" uuid PRIMARY KEY NOT NULL,
	"workspace_id" uuid,
	"name" text NOT NULL,
	"role" text NOT NULL,
	"sha256" "bytea" NOT NULL,
	"expires_at" timestamp (3) with time zone,
	"revoked_at" timestamp (3) with time zone,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "tokens_sha256_unique" UNIQUE("sha256")
);
--> statement-breakpoint
CREATE TABLE "workers" (
	"id" text PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"address" text NOT NULL,
	"boot_public_key" "bytea" NOT NULL,
	"boot_nonce" text NOT NULL,
	"cpu_millis" integer NOT NULL,
	"memory_bytes" bigint NOT NULL,
	"cpu_millis_used" integer DEFAULT 0 NOT NULL,
	"memory_bytes_used" bigint DEFAULT 0 NOT NULL,
	"state" text NOT NULL,
	"platform" text NOT NULL,
	"version" text NOT NULL,
	"last_heartbeat_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "workspaces" (
	"id" uuid PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"wrapped_key" "bytea" NOT NULL,
	"key_id" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "workspaces_name_unique" UNIQUE("name")
);
--> statement-breakpoint
ALTER TABLE "container_events" ADD CONSTRAINT "container_events_container" FOREIGN KEY ("container_id") REFERENCES "public"."containers"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "containers" ADD CONSTRAINT "containers_workspace_id_workspaces_id_fk" FOREIGN KEY ("workspace_id") REFERENCES "public"."workspaces"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "image_layers" ADD CONSTRAINT "image_layers_image" FOREIGN KEY ("image_id") REFERENCES "public"."images"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "image_layers" ADD CONSTRAINT "image_layers_layer" FOREIGN KEY ("digest") REFERENCES "public"."layers"("digest") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "image_references" ADD CONSTRAINT "image_references_image" FOREIGN KEY ("image_id") REFERENCES "public"."images"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "images" ADD CONSTRAINT "images_workspace_id_workspaces_id_fk" FOREIGN KEY ("workspace_id") REFERENCES "public"."workspaces"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "secret_versions" ADD CONSTRAINT "secret_versions_secret" FOREIGN KEY ("secret_id") REFERENCES "public"."secrets"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "secrets" ADD CONSTRAINT "secrets_workspace_id_workspaces_id_fk" FOREIGN KEY ("workspace_id") REFERENCES "public"."workspaces"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "tokens" ADD CONSTRAINT "tokens_workspace_id_workspaces_id_fk" FOREIGN KEY ("workspace_id") REFERENCES "public"."workspaces"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "container_events_of" ON "container_events" USING btree ("container_id","id");--> statement-breakpoint
CREATE INDEX "containers_queue" ON "containers" USING btree ("state","created_at");--> statement-breakpoint
CREATE INDEX "containers_workspace" ON "containers" USING btree ("workspace_id","created_at");--> statement-breakpoint
CREATE INDEX "containers_worker" ON "containers" USING btree ("worker_id","state");--> statement-breakpoint
CREATE INDEX "containers_image" ON "containers" USING btree ("image_id","state");--> statement-breakpoint
CREATE INDEX "image_layers_digest" ON "image_layers" USING btree ("digest");--> statement-breakpoint
CREATE INDEX "image_references_image_id" ON "image_references" USING btree ("image_id");--> statement-breakpoint
CREATE INDEX "images_credential_secret_name" ON "images" USING btree ("credential_secret_name");--> statement-breakpoint
CREATE INDEX "images_workspace" ON "images" USING btree ("workspace_id","updated_at");--> statement-breakpoint
CREATE INDEX "secrets_principal" ON "secrets" USING btree ("workspace_id","registry","principal");--> statement-breakpoint
CREATE INDEX "workers_state" ON "workers" USING btree ("state","last_heartbeat_at");