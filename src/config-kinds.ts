import { z } from "zod";
import { lifetime, mirrorList, origin, patience, proxySetting } from "./config-fields.ts";
import { pluginApiVersions } from "./credential/plugin-answer.ts";
import { parseImagePattern } from "./credential/plugin-match.ts";

/** What the operator says of one host, by its name as it stands in references and realms. */
export const registryHost = z.strictObject({
  /** Plain HTTP, at whatever address. */
  insecure: z.boolean().default(false),
  /** HTTPS with a private address. */
  private: z.boolean().default(false),
  /** Where the host really is; requests keep its name (`Host`, TLS server name). */
  connect: origin.optional(),
  /** PEM file with authorities for this host, in addition to the others. */
  ca_file: z.string().optional(),
  /** A proxy for this host alone, or `none`. */
  proxy: proxySetting.optional(),
  mirrors: mirrorList.default([]),
  /** Hosts of its token service. */
  realms: z.array(z.string()).default([]),
  connections: z.number().int().positive().max(256).optional(),
});

export const identityName = z
  .string()
  .regex(/^[a-z0-9][a-z0-9_-]{0,62}$/, "must be a short name such as prod-ecr");

/** The operator's own identities at clouds: what the hosts of this node are, there. */
const identityKinds = [
  z.strictObject({
    type: z.literal("aws"),
    /** EC2 instance profile (IMDSv2), ECS or EKS container credentials, or a web identity token (IRSA). */
    source: z.enum(["instance", "container", "web_identity"]),
    /** Container credentials: what ECS or EKS put into the environment of the node. */
    container_credentials_uri: z.url().optional(),
    container_token_file: z.string().optional(),
    web_identity_token_file: z.string().optional(),
    /** Of `web_identity`: that role; of the others: a role to go on to. */
    role_arn: z.string().optional(),
  }),
  z.strictObject({
    type: z.literal("gcp"),
    /** The metadata server's default service account. */
    source: z.enum(["metadata"]),
    /** Goes on to this service account. */
    service_account: z.string().optional(),
  }),
  z.strictObject({
    type: z.literal("azure"),
    /** Managed identity (IMDS), or a federated token in a file (workload identity). */
    source: z.enum(["managed", "workload"]),
    client_id: z.string().optional(),
    tenant_id: z.string().optional(),
    token_file: z.string().optional(),
  }),
  z.strictObject({
    type: z.literal("plugin"),
    /** A kubelet credential provider: asked with a CredentialProviderRequest on its standard input. */
    command: z.array(z.string()).nonempty(),
    env: z.record(z.string(), z.string()).default({}),
    /** As in the kubelet's CredentialProviderConfig. */
    match_images: z
      .array(
        z
          .string()
          .refine((text) => parseImagePattern(text) !== undefined, "must be a pattern such as *.acme.test"),
      )
      .nonempty(),
    api_version: z.enum(pluginApiVersions).default(pluginApiVersions[0]),
    timeout: patience.default(30_000),
  }),
] as const;

export const identity = z.discriminatedUnion("type", identityKinds, {
  error: 'must be "aws", "gcp", "azure" or "plugin"',
});

export const keyName = z
  .string()
  .regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, "must be a short name such as kms-2026");

/** Where a key-encryption key is kept. */
const keyKinds = [
  z.strictObject({ type: z.literal("file"), path: z.string() }),
  z.strictObject({
    type: z.literal("aws-kms"),
    /** ARN of a symmetric key; an alias could come to mean another one. */
    key: z
      .string()
      .regex(/^arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key\/[A-Za-z0-9-]+$/, "must be the ARN of a key"),
    /** Of `[identities]`: who asks. */
    identity: identityName,
  }),
  z.strictObject({
    type: z.literal("gcp-kms"),
    key: z
      .string()
      .regex(
        /^projects\/[a-z0-9][a-z0-9.:-]*\/locations\/[a-z0-9-]+\/keyRings\/[A-Za-z0-9_-]+\/cryptoKeys\/[A-Za-z0-9_-]+$/,
        "must be projects/P/locations/L/keyRings/R/cryptoKeys/K",
      ),
    identity: identityName,
  }),
  /** For development: 32 bytes in base64. */
  z.strictObject({ type: z.literal("env"), variable: z.string().regex(/^[A-Z][A-Z0-9_]*$/) }),
] as const;

export const encryptionKey = z.discriminatedUnion("type", keyKinds, {
  error: 'must be "file", "aws-kms", "gcp-kms" or "env"',
});

export const workspace = z.strictObject({
  /** Whether its containers may use the host's network. */
  host_network: z.boolean().default(false),
  /** What its containers get that ask for no network. */
  default_network: z.enum(["private", "none"]).default("private"),
  /** Directories of workers' hosts that its containers may have as volumes, with all below; `:ro`: to be read alone. */
  host_paths: z
    .array(z.string().regex(/^\/[^:\0]*(:ro)?$/, "must be an absolute path, with :ro or without"))
    .default([]),
  /** Host ports that its containers may be given: `ADDRESS:FIRST-LAST`. */
  publish: z
    .array(
      z.string().regex(/^\d+\.\d+\.\d+\.\d+:\d{1,5}(-\d{1,5})?$/, "must be such as 127.0.0.1:1024-65535"),
    )
    .default(["127.0.0.1:1024-65535"]),
  /** Identities of `[identities]` that its credentials may name. */
  identities: z.array(identityName).default([]),
  /** The one that is used where a build or a run has no credential. */
  default_identity: identityName.optional(),
  /**
   * What workers get: `minted`, a short-lived authorization where one can be had, renewed with the scheduler; or
   * `sealed`, the credential itself, which needs no scheduler later on.
   */
  credential_delivery: z.enum(["minted", "sealed"]).default("minted"),
  /** Whether `credential get` may give out a stored password where nothing short-lived can be had. */
  release_credentials: z.boolean().default(false),
  /**
   * How long the registry's word that the workspace may have an image counts for further starts; 0: it is asked at each.
   */
  grant_life: lifetime.default(15 * 60_000),
});
