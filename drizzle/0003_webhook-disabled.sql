ALTER TABLE "webhooks" ADD COLUMN "disabled_at" timestamp (3) with time zone;--> statement-breakpoint
CREATE INDEX "alerts_secret" ON "alerts" USING btree ("secret_id","created_at");