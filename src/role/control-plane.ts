import { randomUUID } from "node:crypto";
import type { AuditEvent } from "../audit/audit.ts";
import { AuditStore } from "../audit/store.ts";
import { AuditTrail } from "../audit/trail.ts";
import { ClusterAuthorities } from "../cluster/authorities.ts";
import { AuthorityStore } from "../cluster/authority-store.ts";
import { loadCertificates } from "../cluster/certificate.ts";
import { ControlPlaneIdentity } from "../cluster/control-plane-identity.ts";
import { WorkerIdentityStore } from "../cluster/identity-store.ts";
import type { Config } from "../config.ts";
import { CodeStore } from "../container/code-store.ts";
import { HousekeepingStore } from "../container/housekeeping-store.ts";
import { ContainerStore } from "../container/store.ts";
import { VolumeStore } from "../container/volume-store.ts";
import { WorkerClients } from "../container/worker-client.ts";
import type { DefaultProvider, ProvidersOf } from "../credential/issuer.ts";
import { Database } from "../db/database.ts";
import { EmbeddedPostgres } from "../db/embedded.ts";
import { DemandStore } from "../endpoint/demand-store.ts";
import { DeploymentStore } from "../endpoint/deployment-store.ts";
import { RetentionStore } from "../endpoint/retention-store.ts";
import { EndpointStore } from "../endpoint/store.ts";
import { AlertStore } from "../health/alert-store.ts";
import { DeliveryStore } from "../health/delivery-store.ts";
import { MetricsStore } from "../health/metrics-store.ts";
import { WebhookStore } from "../health/webhook-store.ts";
import { ImageStore } from "../image/store.ts";
import type { RegistryClient } from "../registry/client.ts";
import { FormerWorkerStore } from "../scheduler/former-worker-store.ts";
import { SchedulerStore } from "../scheduler/store.ts";
import { IdentityIssuer } from "../secret/identity-issuer.ts";
import { IdentityKeyStore } from "../secret/identity-key-store.ts";
import { IdentityKeys } from "../secret/identity-keys.ts";
import type { DescribeIdentity } from "../secret/identity-service.ts";
import { KeyPresence } from "../secret/key-presence.ts";
import { ControlProcessStore } from "../secret/key-process-store.ts";
import type { RotationDependencies } from "../secret/key-rotation.ts";
import { WrappedRowStore } from "../secret/key-rows-store.ts";
import { KeyStore } from "../secret/key-store.ts";
import type { Keyring } from "../secret/keyring.ts";
import { LiveKeyring } from "../secret/keyring-live.ts";
import { SecretStore } from "../secret/store.ts";
import { TokenStore } from "../secret/token-store.ts";
import { Vault } from "../secret/vault.ts";
import { WebhookVault } from "../secret/webhook-vault.ts";
import { WorkspaceStore } from "../secret/workspace-store.ts";
import { assertSafeDatabase } from "./database-url.ts";
import { createIdentities } from "./identities.ts";
import { type KeySourceOptions, keySource } from "./keyring.ts";
import { createDefaultProvider, createDescription, createProvidersOf } from "./providers.ts";
import { createRegistryClient } from "./registry-client.ts";
import { openSecretHealth, type SecretHealthParts } from "./secret-health.ts";
import { type WorkspacePolicies, workspacePolicies } from "./workspace-policy.ts";

/**
 * What gateway and scheduler share: the database behind its stores, the key that opens secrets, the registries as they are
 * asked from here, and what the operator allows each workspace.
 */
export interface ControlPlane {
  /** Where what happens is written down, and where it is read. */
  readonly audit: AuditTrail;
  readonly auditEvents: AuditStore;
  readonly workspaces: WorkspaceStore;
  readonly tokens: TokenStore;
  readonly vault: Vault;
  readonly secretHealth: SecretHealthParts;
  readonly images: ImageStore;
  readonly containers: ContainerStore;
  readonly housekeeping: HousekeepingStore;
  readonly volumes: VolumeStore;
  readonly codes: CodeStore;
  readonly endpointStores: EndpointStores;
  readonly scheduling: SchedulerStore;
  readonly formerWorkers: FormerWorkerStore;
  readonly workerClients: WorkerClients;
  readonly authorities: ClusterAuthorities;
  /** What this process shows to workers. */
  readonly identity: ControlPlaneIdentity;
  readonly workerIdentities: WorkerIdentityStore;
  readonly registry: RegistryClient;
  readonly policies: WorkspacePolicies;
  readonly alerting: Alerting;
  readonly metrics: MetricsStore;
  /** What a workspace's credentials need to become providers; asked for anew at each use, as it holds what is allowed. */
  readonly providersOf: ProvidersOf;
  readonly defaultProvider: DefaultProvider;
  readonly describeIdentity: DescribeIdentity;
  /** Signs the workspaces' tokens; undefined where the operator named no issuer. */
  readonly issuer: IdentityIssuer | undefined;
  /** The key-encryption keys, and what a rotation needs. */
  readonly rotation: RotationDependencies;
  close(): Promise<void>;
}

export interface EndpointStores {
  readonly endpoints: EndpointStore;
  readonly deployments: DeploymentStore;
  readonly demandStore: DemandStore;
  readonly retention: RetentionStore;
}

/** How people are told of their secrets. */
export interface Alerting {
  readonly alerts: AlertStore;
  readonly webhookStore: WebhookStore;
  readonly deliveries: DeliveryStore;
  readonly vault: WebhookVault;
}

export interface ControlPlaneOptions {
  readonly roles: readonly string[];
  /** Variables that may hold keys; undefined: none may. */
  readonly env: KeySourceOptions["env"];
  /** Called when a key file was made. */
  readonly onMade: (path: string) => void;
}

/**
 * Opens the database (starting the embedded PostgreSQL when no other is named), brings the schema up to date, and opens
 * the key-encryption keys. The first is made when there is none, but only while nothing was encrypted under another.
 */
export async function openControlPlane(
  config: Config,
  signal: AbortSignal,
  options: ControlPlaneOptions,
): Promise<ControlPlane> {
  const { url } = config.database;
  if (url !== undefined) assertSafeDatabase(url);
  // What is wrong in these settings is told before a database or a key is made.
  const registry = createRegistryClient(config);
  const issuers = { fetch: registry.issuerFetch, metadataFetch: registry.metadataFetch };
  createIdentities(config.identities, issuers);
  // While the database starts.
  loadCertificates();
  const embedded =
    url === undefined ? await EmbeddedPostgres.start({ dataDir: config.data_dir, signal }) : undefined;
  try {
    const database = await Database.connect(url ?? (embedded as EmbeddedPostgres).url);
    await database.migrate();
    const keys = new KeyStore(database);
    const { env, onMade } = options;
    const ring = await LiveKeyring.open(keySource(config, { issuers, env, onMade }), keys);
    const processes = new ControlProcessStore(database);
    const presence = await KeyPresence.start({
      store: processes,
      ring,
      roles: options.roles,
      dataDir: config.data_dir,
    });
    const workspaces = new WorkspaceStore(database, ring);
    const authorities = await ClusterAuthorities.open(new AuthorityStore(database), ring);
    const identity = await ControlPlaneIdentity.start(authorities, config.cluster.certificate_life);
    const policies = workspacePolicies(config, workspaces);
    const issuer = createIssuer(config, database, ring);
    const providersOf = createProvidersOf({ config, policies, issuers, issuer });
    const vault = new Vault({ store: new SecretStore(database), workspaces });
    const auditEvents = new AuditStore(database);
    const audit = new AuditTrail(auditEvents);
    const note = (event: AuditEvent) => audit.note(event);
    const containers = new ContainerStore(database);
    const secretHealth = openSecretHealth(config, database, { registry, providersOf, vault, note });
    return {
      audit,
      auditEvents,
      issuer,
      registry,
      policies,
      metrics: new MetricsStore(database),
      alerting: {
        alerts: new AlertStore(database),
        webhookStore: new WebhookStore(database),
        deliveries: new DeliveryStore(database, randomUUID()),
        vault: new WebhookVault(workspaces),
      },
      providersOf,
      describeIdentity: createDescription({ config, policies }),
      defaultProvider: createDefaultProvider({ policies, providersOf }),
      workspaces,
      tokens: new TokenStore(database),
      vault,
      secretHealth,
      images: new ImageStore(database),
      housekeeping: new HousekeepingStore(database),
      volumes: new VolumeStore(database),
      codes: new CodeStore(database),
      containers,
      endpointStores: {
        endpoints: new EndpointStore(database, containers),
        deployments: new DeploymentStore(database, containers),
        demandStore: new DemandStore(database),
        retention: new RetentionStore(database),
      },
      scheduling: new SchedulerStore(database),
      formerWorkers: new FormerWorkerStore(database),
      rotation: { ring, keys, rows: new WrappedRowStore(database), processes },
      workerClients: new WorkerClients(() => identity.current),
      authorities,
      identity,
      workerIdentities: new WorkerIdentityStore(database),
      async close() {
        await presence.close();
        await audit.close();
        identity.close();
        await database.close();
        await embedded?.stop();
      },
    };
  } catch (error) {
    await embedded?.stop();
    throw error;
  }
}

function createIssuer(config: Config, database: Database, ring: Keyring): IdentityIssuer | undefined {
  const { issuer } = config.identity;
  if (issuer === undefined) return undefined;
  return new IdentityIssuer(issuer, new IdentityKeys(new IdentityKeyStore(database), ring));
}
