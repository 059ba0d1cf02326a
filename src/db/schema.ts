import {
  bigserial,
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
  varchar,
} from "drizzle-orm/pg-core";
import { at, bytea, bytes, createdAt } from "./columns.ts";

/** Tenants. `wrapped_key` is the workspace key under the key-encryption key `key_id`, which the database never holds. */
export const workspaces = pgTable("workspaces", {
  id: uuid("id").primaryKey(),
  name: text("name").notNull().unique(),
  wrappedKey: bytea("wrapped_key").notNull(),
  keyId: text("key_id").notNull(),
  createdAt: createdAt(),
});

/** Bearer tokens by their SHA-256. No workspace: the token is the cluster's (worker, admin). */
export const tokens = pgTable("tokens", {
  id: uuid("id").primaryKey(),
  workspaceId: uuid("workspace_id").references(() => workspaces.id, { onDelete: "cascade" }),
  name: text("name").notNull(),
  role: text("role").notNull(),
  sha256: bytea("sha256").notNull().unique(),
  expiresAt: at("expires_at"),
  revokedAt: at("revoked_at"),
  /** To the minute. */
  lastUsedAt: at("last_used_at"),
  /** The token that made it; absent: the node itself. */
  createdBy: uuid("created_by"),
  createdAt: createdAt(),
});

export const secrets = pgTable(
  "secrets",
  {
    id: uuid("id").primaryKey(),
    workspaceId: uuid("workspace_id")
      .notNull()
      .references(() => workspaces.id, { onDelete: "cascade" }),
    name: varchar("name", { length: 255 }).notNull(),
    registry: text("registry").notNull(),
    credentialType: text("credential_type").notNull(),
    principal: text("principal").notNull(),
    currentVersion: integer("current_version").notNull(),
    /** Of the registry: where its health is checked. Absent: at an image's that uses it, else at the registry alone. */
    repository: text("repository"),
    /** When the credential ends, as its owner said. */
    declaredExpiry: at("declared_expiry"),
    createdAt: createdAt(),
    updatedAt: at("updated_at").notNull().defaultNow(),
  },
  (table) => [
    unique("secrets_workspace_name").on(table.workspaceId, table.name),
    index("secrets_principal").on(table.workspaceId, table.registry, table.principal),
  ],
);

/** One sealed value per version; `ciphertext` ends with the 16-byte tag, `wrapped_data_key` begins with its nonce. */
export const secretVersions = pgTable(
  "secret_versions",
  {
    secretId: uuid("secret_id").notNull(),
    version: integer("version").notNull(),
    keyId: text("key_id").notNull(),
    wrappedDataKey: bytea("wrapped_data_key").notNull(),
    nonce: bytea("nonce").notNull(),
    ciphertext: bytea("ciphertext").notNull(),
    createdAt: createdAt(),
  },
  (table) => [
    primaryKey({ name: "secret_versions_pk", columns: [table.secretId, table.version] }),
    foreignKey({
      name: "secret_versions_secret",
      columns: [table.secretId],
      foreignColumns: [secrets.id],
    }).onDelete("cascade"),
  ],
);

/** Images that were built. The credential columns are no foreign key: an image outlives a secret removed by force. */
export const images = pgTable(
  "images",
  {
    id: text("id").primaryKey(),
    workspaceId: uuid("workspace_id")
      .notNull()
      .references(() => workspaces.id, { onDelete: "cascade" }),
    registry: text("registry").notNull(),
    repository: text("repository").notNull(),
    reference: text("reference").notNull(),
    manifestDigest: text("manifest_digest").notNull(),
    configDigest: text("config_digest").notNull(),
    platform: text("platform").notNull(),
    credentialSecretName: varchar("credential_secret_name", { length: 255 }),
    credentialSecretId: varchar("credential_secret_id", { length: 36 }),
    indexSha256: text("index_sha256"),
    sizeBytes: bytes("size_bytes").notNull(),
    inodes: bytes("inodes").notNull(),
    status: text("status").notNull(),
    failure: text("failure"),
    createdAt: createdAt(),
    updatedAt: at("updated_at").notNull().defaultNow(),
  },
  (table) => [
    index("images_credential_secret_name").on(table.credentialSecretName),
    index("images_workspace").on(table.workspaceId, table.updatedAt),
  ],
);

/** What a reference means in a workspace: the image of its latest build for each platform. */
export const imageReferences = pgTable(
  "image_references",
  {
    workspaceId: uuid("workspace_id").notNull(),
    reference: text("reference").notNull(),
    platform: text("platform").notNull(),
    imageId: text("image_id").notNull(),
    createdAt: createdAt(),
    updatedAt: at("updated_at").notNull().defaultNow(),
  },
  (table) => [
    primaryKey({
      name: "image_references_pk",
      columns: [table.workspaceId, table.reference, table.platform],
    }),
    foreignKey({
      name: "image_references_image",
      columns: [table.imageId],
      foreignColumns: [images.id],
    }).onDelete("cascade"),
    index("image_references_image_id").on(table.imageId),
  ],
);

/** Layers that were indexed, shared by digest; the columns are those of the index room's `IndexedLayer`. */
export const layers = pgTable("layers", {
  digest: text("digest").primaryKey(),
  mediaType: text("media_type").notNull(),
  sizeBytes: bytes("size_bytes").notNull(),
  tarSizeBytes: bytes("tar_size_bytes").notNull(),
  blobSizeBytes: bytes("blob_size_bytes").notNull(),
  entries: bytes("entries").notNull(),
  spanSha256: text("span_sha256").notNull(),
  spanSizeBytes: bytes("span_size_bytes").notNull(),
  /** SHA-256 (hex) of the layer's facts in the index store, so that whoever can write there changes no build. */
  factsSha256: text("facts_sha256"),
  createdAt: createdAt(),
});

/** Registries from which a layer came byte by byte: there, and only there, a registry's word stands for the bytes. */
export const layerOrigins = pgTable(
  "layer_origins",
  {
    digest: text("digest").notNull(),
    /** Host of the registry. */
    registry: text("registry").notNull(),
    createdAt: createdAt(),
  },
  (table) => [
    primaryKey({ name: "layer_origins_pk", columns: [table.digest, table.registry] }),
    foreignKey({
      name: "layer_origins_layer",
      columns: [table.digest],
      foreignColumns: [layers.digest],
    }).onDelete("cascade"),
  ],
);

/** The layers of an image, the base at position 0. */
export const imageLayers = pgTable(
  "image_layers",
  {
    imageId: text("image_id").notNull(),
    position: integer("position").notNull(),
    digest: text("digest").notNull(),
    createdAt: createdAt(),
  },
  (table) => [
    primaryKey({ name: "image_layers_pk", columns: [table.imageId, table.position] }),
    foreignKey({
      name: "image_layers_image",
      columns: [table.imageId],
      foreignColumns: [images.id],
    }).onDelete("cascade"),
    foreignKey({ name: "image_layers_layer", columns: [table.digest], foreignColumns: [layers.digest] }),
    index("image_layers_digest").on(table.digest),
  ],
);

/**
 * Containers, living and ended; the queue is those that are pending. A claim is a lease (`claimed_by`, `lease_until`),
 * never a lock held by a connection. `image_id` is no foreign key: an ended container outlives its image.
 */
export const containers = pgTable(
  "containers",
  {
    id: text("id").primaryKey(),
    workspaceId: uuid("workspace_id")
      .notNull()
      .references(() => workspaces.id, { onDelete: "cascade" }),
    imageId: text("image_id").notNull(),
    reference: text("reference").notNull(),
    state: text("state").notNull(),
    attempt: integer("attempt").notNull().default(1),
    workerId: text("worker_id"),
    /** As the user named it. */
    name: text("name"),
    /** The deployment of an endpoint that it is of. */
    deploymentId: text("deployment_id"),
    /** The container room's `ContainerSpec`: command, environment, network, options. Never the value of a secret. */
    spec: jsonb("spec").notNull(),
    cpuMillis: integer("cpu_millis").notNull().default(0),
    memoryBytes: bytes("memory_bytes").notNull().default(0),
    exitCode: integer("exit_code"),
    signal: text("signal"),
    oomKilled: boolean("oom_killed").notNull().default(false),
    reason: text("reason"),
    /** Phase name → RFC 3339 time. */
    phases: jsonb("phases").notNull().default({}),
    transfer: jsonb("transfer"),
    /** How the image's credential reached the worker: the container room's `ImageCredential`; never a value. */
    imageCredential: jsonb("image_credential"),
    /** Its own IP address. */
    address: text("address"),
    /** The container room's `PublishedPort`s, as the host gave them. */
    ports: jsonb("ports").notNull().default([]),
    restarts: integer("restarts").notNull().default(0),
    /** Its port answered. */
    readyAt: at("ready_at"),
    /** It gets no requests any more and is to end. */
    drainingAt: at("draining_at"),
    startedAt: at("started_at"),
    finishedAt: at("finished_at"),
    claimedBy: text("claimed_by"),
    leaseUntil: at("lease_until"),
    createdAt: createdAt(),
    updatedAt: at("updated_at").notNull().defaultNow(),
  },
  (table) => [
    index("containers_queue").on(table.state, table.createdAt),
    index("containers_workspace").on(table.workspaceId, table.createdAt),
    index("containers_worker").on(table.workerId, table.state),
    index("containers_image").on(table.imageId, table.state),
    index("containers_deployment").on(table.deploymentId, table.state),
    unique("containers_workspace_name").on(table.workspaceId, table.name),
  ],
);

export const containerEvents = pgTable(
  "container_events",
  {
    id: bigserial("id", { mode: "number" }).primaryKey(),
    containerId: text("container_id").notNull(),
    workspaceId: uuid("workspace_id").notNull(),
    at: at("at").notNull(),
    kind: text("kind").notNull(),
    message: text("message").notNull(),
    fields: jsonb("fields").notNull().default({}),
    createdAt: createdAt(),
  },
  (table) => [
    foreignKey({
      name: "container_events_container",
      columns: [table.containerId],
      foreignColumns: [containers.id],
    }).onDelete("cascade"),
    index("container_events_of").on(table.containerId, table.id),
  ],
);

/** Workers; a new `boot_nonce` is a new boot: what was sealed to the boot before cannot be opened any more. */
export const workers = pgTable(
  "workers",
  {
    id: text("id").primaryKey(),
    name: text("name").notNull(),
    address: text("address").notNull(),
    bootPublicKey: bytea("boot_public_key").notNull(),
    bootNonce: text("boot_nonce").notNull(),
    cpuMillis: integer("cpu_millis").notNull(),
    memoryBytes: bytes("memory_bytes").notNull(),
    cpuMillisUsed: integer("cpu_millis_used").notNull().default(0),
    memoryBytesUsed: bytes("memory_bytes_used").notNull().default(0),
    state: text("state").notNull(),
    platform: text("platform").notNull(),
    version: text("version").notNull(),
    /** Up to where it understands hand-overs. */
    requestVersion: integer("request_version").notNull().default(0),
    lastHeartbeatAt: at("last_heartbeat_at").notNull().defaultNow(),
    createdAt: createdAt(),
  },
  (table) => [index("workers_state").on(table.state, table.lastHeartbeatAt)],
);

/** States of a container that has ended: what an image's removal need not wait for. The container room owns the states. */
export const endedContainerStates = ["exited", "failed", "stopped"];
