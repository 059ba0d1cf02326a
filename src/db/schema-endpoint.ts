import {
  boolean,
  foreignKey,
  index,
  integer,
  jsonb,
  pgTable,
  primaryKey,
  text,
  unique,
  uuid,
} from "drizzle-orm/pg-core";
import { at, bytea, bytes, createdAt } from "./columns.ts";
import { workspaces } from "./schema.ts";

/** What `/endpoint/NAME` leads to. */
export const endpoints = pgTable(
  "endpoints",
  {
    id: text("id").primaryKey(),
    workspaceId: uuid("workspace_id")
      .notNull()
      .references(() => workspaces.id, { onDelete: "cascade" }),
    name: text("name").notNull(),
    /** The deployment that takes the requests; absent: none did yet. */
    activeDeploymentId: text("active_deployment_id"),
    /** It takes no requests any more, and goes with its last container. */
    deletingAt: at("deleting_at"),
    createdAt: createdAt(),
    updatedAt: at("updated_at").notNull().defaultNow(),
  },
  (table) => [unique("endpoints_workspace_name").on(table.workspaceId, table.name)],
);

/** The versions of an endpoint; `spec` is the endpoint room's `EndpointSpec`. */
export const deployments = pgTable(
  "deployments",
  {
    id: text("id").primaryKey(),
    endpointId: text("endpoint_id").notNull(),
    workspaceId: uuid("workspace_id").notNull(),
    version: integer("version").notNull(),
    /** `starting`, `active`, `draining`, `retired`, `failed`. */
    state: text("state").notNull(),
    imageId: text("image_id").notNull(),
    reference: text("reference").notNull(),
    spec: jsonb("spec").notNull(),
    public: boolean("is_public").notNull().default(false),
    reason: text("reason"),
    /** When a request was last waiting or under way, at any gateway. */
    lastUsedAt: at("last_used_at").notNull().defaultNow(),
    createdAt: createdAt(),
    updatedAt: at("updated_at").notNull().defaultNow(),
  },
  (table) => [
    foreignKey({
      name: "deployments_endpoint",
      columns: [table.endpointId],
      foreignColumns: [endpoints.id],
    }).onDelete("cascade"),
    unique("deployments_version").on(table.endpointId, table.version),
    index("deployments_state").on(table.state),
  ],
);

/** What each gateway has for a deployment now. A row that is not renewed is a gateway's that is gone. */
export const deploymentDemands = pgTable(
  "deployment_demands",
  {
    deploymentId: text("deployment_id").notNull(),
    gatewayId: uuid("gateway_id").notNull(),
    queued: integer("queued").notNull(),
    inFlight: integer("in_flight").notNull(),
    seenAt: at("seen_at").notNull().defaultNow(),
  },
  (table) => [
    primaryKey({ name: "deployment_demands_pk", columns: [table.deploymentId, table.gatewayId] }),
    foreignKey({
      name: "deployment_demands_deployment",
      columns: [table.deploymentId],
      foreignColumns: [deployments.id],
    }).onDelete("cascade"),
  ],
);

/** Archives of code, by workspace and digest. */
export const codeArchives = pgTable(
  "code_archives",
  {
    workspaceId: uuid("workspace_id")
      .notNull()
      .references(() => workspaces.id, { onDelete: "cascade" }),
    sha256: text("sha256").notNull(),
    sizeBytes: bytes("size_bytes").notNull(),
    pieces: integer("pieces").notNull(),
    usedAt: at("used_at").notNull().defaultNow(),
    createdAt: createdAt(),
  },
  (table) => [primaryKey({ name: "code_archives_pk", columns: [table.workspaceId, table.sha256] })],
);

export const codePieces = pgTable(
  "code_pieces",
  {
    workspaceId: uuid("workspace_id").notNull(),
    sha256: text("sha256").notNull(),
    position: integer("position").notNull(),
    data: bytea("data").notNull(),
  },
  (table) => [
    primaryKey({ name: "code_pieces_pk", columns: [table.workspaceId, table.sha256, table.position] }),
    foreignKey({
      name: "code_pieces_archive",
      columns: [table.workspaceId, table.sha256],
      foreignColumns: [codeArchives.workspaceId, codeArchives.sha256],
    }).onDelete("cascade"),
  ],
);

/** Volumes with a name: each is on the worker that made it. */
export const volumes = pgTable(
  "volumes",
  {
    workspaceId: uuid("workspace_id")
      .notNull()
      .references(() => workspaces.id, { onDelete: "cascade" }),
    name: text("name").notNull(),
    workerId: text("worker_id").notNull(),
    createdAt: createdAt(),
  },
  (table) => [primaryKey({ name: "volumes_pk", columns: [table.workspaceId, table.name] })],
);
