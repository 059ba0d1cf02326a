import { boolean, jsonb, pgTable, text, uuid } from "drizzle-orm/pg-core";
import { at, bytea, createdAt } from "./columns.ts";

/**
 * Key-encryption keys that this cluster knows by name; the keys themselves are never here. One is primary: what is wrapped
 * anew is wrapped with it.
 */
export const encryptionKeys = pgTable("encryption_keys", {
  id: text("id").primaryKey(),
  /** `file`, `aws-kms`, `gcp-kms`, `env`. */
  kind: text("kind").notNull(),
  primary: boolean("is_primary").notNull().default(false),
  exportedAt: at("exported_at"),
  retiredAt: at("retired_at"),
  createdAt: createdAt(),
});

/** Gateways and schedulers that live, and the key-encryption keys that each of them can use. */
export const controlProcesses = pgTable("control_processes", {
  id: uuid("id").primaryKey(),
  host: text("host").notNull(),
  /** Role names. */
  roles: jsonb("roles").notNull(),
  /** Ids of `encryption_keys`. */
  keyIds: jsonb("key_ids").notNull(),
  version: text("version").notNull(),
  seenAt: at("seen_at").notNull().defaultNow(),
  createdAt: createdAt(),
});

/** The cluster's own certificate authority; the private half under the key-encryption key `key_id`. */
export const clusterAuthorities = pgTable("cluster_authorities", {
  /** SHA-256 (hex) of the certificate's DER. */
  id: text("id").primaryKey(),
  certificatePem: text("certificate_pem").notNull(),
  wrappedPrivateKey: bytea("wrapped_private_key").notNull(),
  keyId: text("key_id").notNull(),
  createdAt: createdAt(),
});

/** Workers that were let in: a certificate counts only while its worker's row is here and not revoked. */
export const workerIdentities = pgTable("worker_identities", {
  workerId: text("worker_id").primaryKey(),
  /** SHA-256 (hex) of the public key's SubjectPublicKeyInfo; another key cannot take the id over. */
  publicKeySha256: text("public_key_sha256").notNull(),
  name: text("name").notNull(),
  /** The join token. */
  tokenId: uuid("token_id"),
  joinedFrom: text("joined_from"),
  /** Of the latest certificate. */
  certificateSerial: text("certificate_serial").notNull(),
  certificateNotAfter: at("certificate_not_after").notNull(),
  revokedAt: at("revoked_at"),
  createdAt: createdAt(),
  updatedAt: at("updated_at").notNull().defaultNow(),
});

/** Keys that sign the workspaces' OpenID Connect tokens; the private half under the key-encryption key `key_id`. */
export const identityKeys = pgTable("identity_keys", {
  /** `kid` of the JSON Web Key. */
  id: text("id").primaryKey(),
  publicJwk: jsonb("public_jwk").notNull(),
  wrappedPrivateKey: bytea("wrapped_private_key").notNull(),
  keyId: text("key_id").notNull(),
  createdAt: createdAt(),
});
