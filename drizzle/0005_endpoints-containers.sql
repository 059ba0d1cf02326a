CREATE TABLE "code_archives" (
	"workspace_id" uuid NOT NULL,
	"sha256" text NOT NULL,
	"size_bytes" bigint NOT NULL,
	"pieces" integer NOT NULL,
	"used_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "code_archives_pk" PRIMARY KEY("workspace_id","sha256")
);
--> statement-breakpoint
CREATE TABLE "code_pieces" (
	"workspace_id" uuid NOT NULL,
	"sha256" text NOT NULL,
	"position" integer NOT NULL,
	"data" "bytea" NOT NULL,
	CONSTRAINT "code_pieces_pk" PRIMARY KEY("workspace_id","sha256","position")
);
--> statement-breakpoint
CREATE TABLE "deployment_demands" (
	"deployment_id" text NOT NULL,
	"gateway_id" uuid NOT NULL,
	"queued" integer NOT NULL,
	"in_flight" integer NOT NULL,
	"seen_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "deployment_demands_pk" PRIMARY KEY("deployment_id","gateway_id")
);
--> statement-breakpoint
CREATE TABLE "deployments" (
	"id" text PRIMARY KEY NOT NULL,
	"endpoint_id" text NOT NULL,
	"workspace_id" uuid NOT NULL,
	"version" integer NOT NULL,
	"state" text NOT NULL,
	"image_id" text NOT NULL,
	"reference" text NOT NULL,
	"spec" jsonb NOT NULL,
	"is_public" boolean DEFAULT false NOT NULL,
	"reason" text,
	"failures" integer DEFAULT 0 NOT NULL,
	"backoff_until" timestamp (3) with time zone,
	"last_used_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "deployments_version" UNIQUE("endpoint_id","version")
);
--> statement-breakpoint
CREATE TABLE "endpoints" (
	"id" text PRIMARY KEY NOT NULL,
	"workspace_id" uuid NOT NULL,
	"name" text NOT NULL,
	"active_deployment_id" text,
	"deleting_at" timestamp (3) with time zone,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "endpoints_workspace_name" UNIQUE("workspace_id","name")
);
--> statement-breakpoint
CREATE TABLE "volumes" (
	"workspace_id" uuid NOT NULL,
	"name" text NOT NULL,
	"worker_id" text NOT NULL,
	"created_at" timestamp (3) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "volumes_pk" PRIMARY KEY("workspace_id","name")
);
--> statement-breakpoint
ALTER TABLE "containers" ADD COLUMN "name" text;--> statement-breakpoint
ALTER TABLE "containers" ADD COLUMN "deployment_id" text;--> statement-breakpoint
ALTER TABLE "containers" ADD COLUMN "address" text;--> statement-breakpoint
ALTER TABLE "containers" ADD COLUMN "ports" jsonb DEFAULT '[]'::jsonb NOT NULL;--> statement-breakpoint
ALTER TABLE "containers" ADD COLUMN "restarts" integer DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "containers" ADD COLUMN "ready_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "containers" ADD COLUMN "draining_at" timestamp (3) with time zone;--> statement-breakpoint
ALTER TABLE "code_archives" ADD CONSTRAINT "code_archives_workspace_id_workspaces_id_fk" FOREIGN KEY ("workspace_id") REFERENCES "public"."workspaces"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "code_pieces" ADD CONSTRAINT "code_pieces_archive" FOREIGN KEY ("workspace_id","sha256") REFERENCES "public"."code_archives"("workspace_id","sha256") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "deployment_demands" ADD CONSTRAINT "deployment_demands_deployment" FOREIGN KEY ("deployment_id") REFERENCES "public"."deployments"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "deployments" ADD CONSTRAINT "deployments_endpoint" FOREIGN KEY ("endpoint_id") REFERENCES "public"."endpoints"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "endpoints" ADD CONSTRAINT "endpoints_workspace_id_workspaces_id_fk" FOREIGN KEY ("workspace_id") REFERENCES "public"."workspaces"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "volumes" ADD CONSTRAINT "volumes_workspace_id_workspaces_id_fk" FOREIGN KEY ("workspace_id") REFERENCES "public"."workspaces"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "deployments_state" ON "deployments" USING btree ("state");--> statement-breakpoint
CREATE INDEX "containers_deployment" ON "containers" USING btree ("deployment_id","state");--> statement-breakpoint
ALTER TABLE "containers" ADD CONSTRAINT "containers_workspace_name" UNIQUE("workspace_id","name");