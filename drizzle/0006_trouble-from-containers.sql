ALTER TABLE "deployments" DROP COLUMN "failures";--> statement-breakpoint
ALTER TABLE "deployments" DROP COLUMN "backoff_until";