import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EndpointService } from "../../src/gen/oci_node/v1/endpoint_service_pb.ts";
import { HealthService } from "../../src/gen/oci_node/v1/health_service_pb.ts";
import { busyboxImage } from "./busybox-image.ts";
import { TestNode } from "./node.ts";
import { push } from "./push.ts";
import { type RegistryOptions, TestRegistry } from "./registry.ts";
import { callMethod } from "./services.ts";
import { credentialVariables, withCredentials } from "./world.ts";

/** What a call can name. */
export interface Things {
  readonly workspace: string;
  readonly secret: string;
  readonly imageId: string;
  readonly reference: string;
  /** The reference by digest. */
  readonly pinned: string;
  readonly ended: string;
  readonly running: string;
  /** Id of a token. */
  readonly token: string;
  readonly webhook: string;
  /** To be removed, one each time. */
  readonly spareWebhooks: string[];
  readonly key: string;
  readonly worker: string;
  /** Used by the running container. */
  readonly volume: string;
  /** An endpoint of which no container ever answers. */
  readonly endpoint: string;
}

export type TenantRole = "owner" | "developer" | "viewer";

export interface Tenant extends Things {
  readonly tokens: Readonly<Record<TenantRole, string>>;
}

const hooksHost = "hooks.example.test";

/** Ends when it is told to: as the first process of its kind, `sleep` would not. */
const waits = "trap 'exit 0' TERM; sleep 600 & wait";

interface Made {
  readonly id: string;
}

/** A node with two workspaces that are full of things, and tokens of every kind. */
export class TenantScene {
  readonly #dir: string;
  readonly registry: TestRegistry;
  readonly node: TestNode;
  /** Takes what webhooks are sent. */
  readonly #receiver: Bun.Server<undefined>;
  tenants: readonly Tenant[] = [];
  /** Of the cluster: `admin`, `worker`. And tokens that are none: `expired`, `revoked`. */
  tokens: Readonly<Record<"admin" | "worker" | "expired" | "revoked", string>>;

  private constructor(dir: string, registry: TestRegistry, node: TestNode, receiver: Bun.Server<undefined>) {
    this.#dir = dir;
    this.#receiver = receiver;
    this.registry = registry;
    this.node = node;
    this.tokens = { admin: "", worker: "", expired: "", revoked: "" };
  }

  /** @param settings lines of TOML for the node, which may name the registry */
  static async start(
    settings: (registry: TestRegistry) => readonly string[],
    auth: RegistryOptions["auth"] = "htpasswd",
  ): Promise<TenantScene> {
    const dir = await mkdtemp(join(tmpdir(), "oci-node-tenants-"));
    const config = join(dir, "config.toml");
    const registry = await TestRegistry.start({ auth });
    const receiver = Bun.serve({
      hostname: "127.0.0.1",
      port: 0,
      fetch: () => new Response(null, { status: 204 }),
    });
    const hooks = [`[registry.hosts."${hooksHost}"]`, `connect = "http://127.0.0.1:${receiver.port}"`];
    await writeFile(config, [...settings(registry), ...hooks, ""].join("\n"), { mode: 0o600 });
    const node = await TestNode.start({
      insecureRegistries: registry.insecureHosts,
      args: ["--config", config],
    });
    return new TenantScene(dir, registry, node, receiver);
  }

  /** Fills both workspaces, and makes the tokens. */
  async fill(): Promise<void> {
    const { node } = this;
    this.tenants = [await this.#makeTenant("alpha"), await this.#makeTenant("beta")];
    const revoked = await node.json<Made & { token: string }>(tokenOf("owner", "alpha"));
    await node.ok(["token", "revoke", revoked.id]);
    const soon = new Date(Date.now() + 1_000).toISOString();
    const expired = await node.ok([...tokenOf("owner", "alpha"), "--expires", soon]);
    const until = Date.now() + 30_000;
    while ((await node.cli(["image", "ls"], { env: { OCI_NODE_TOKEN: expired } })).code === 0) {
      if (Date.now() > until) throw new Error("the token does not expire");
    }
    this.tokens = {
      admin: await node.ok(["token", "create", "--role", "admin"]),
      worker: await node.ok(["token", "create", "--role", "worker"]),
      expired,
      revoked: revoked.token,
    };
  }

  /** The command line as one of a workspace. */
  as(token: string): Record<string, string> {
    return { ...credentialVariables(this.registry), OCI_NODE_TOKEN: token };
  }

  async #makeTenant(workspace: string): Promise<Tenant> {
    const { node, registry } = this;
    await node.ok(["workspace", "create", workspace]);
    const make = async (role: TenantRole) => await node.ok(tokenOf(role, workspace));
    const tokens = {
      owner: await make("owner"),
      developer: await make("developer"),
      viewer: await make("viewer"),
    };
    const env = this.as(tokens.owner);
    const extra = [{ path: `etc/of-${workspace}`, data: `${workspace}\n` }];
    const pushed = await push(await busyboxImage({ extra }), registry, `of-${workspace}/app:1`);
    const secret = `secret-of-${workspace}`;
    await node.ok(["secret", "create", registry.host, "--name", secret, ...withCredentials], { env });
    const image = await node.json<Made & { manifestDigest: string; reference: string }>(
      ["image", "build", pushed, "--secret", secret, "--index-only"],
      { env },
    );
    await node.ok(["run", image.id, "--", "true"], { env });
    const [ended] = await node.json<Made[]>(["ps", "--all"], { env });
    const volume = `data-of-${workspace}`;
    const waiting = ["run", "-d", "--volume", `${volume}:/data`, image.id, "--", "sh", "-c", waits];
    const running = await node.ok(waiting, { env });
    const until = Date.now() + 30_000;
    while ((await node.json<{ state: string }>(["inspect", running], { env })).state !== "running") {
      if (Date.now() > until) throw new Error("the container does not run");
    }
    const endpoint = `endpoint-of-${workspace}`;
    const deployed = await callMethod(node.url, tokens.owner, EndpointService.method.deployEndpoint, {
      name: endpoint,
      spec: silentEndpoint(image.id),
    });
    if (deployed.code !== "ok") throw new Error(`the endpoint is not deployed: ${deployed.text}`);
    const webhooks: string[] = [];
    for (const name of ["kept", "a", "b", "c", "d"]) {
      const request = { url: `https://${hooksHost}/${workspace}/${name}` };
      const { text } = await callMethod(node.url, tokens.owner, HealthService.method.createWebhook, request);
      webhooks.push(JSON.parse(text).webhook.id);
    }
    const [webhook = "", ...spareWebhooks] = webhooks;
    const spare = await node.json<Made>(tokenOf("viewer", workspace));
    return {
      workspace,
      secret,
      imageId: image.id,
      reference: image.reference,
      pinned: `${registry.host}/of-${workspace}/app@${image.manifestDigest}`,
      ended: ended?.id ?? "",
      running,
      token: spare.id,
      webhook,
      spareWebhooks,
      key: "0".repeat(16),
      worker: "no-such-worker",
      volume,
      endpoint,
      tokens,
    };
  }

  /** Things that there are not; their names are as long as those of the first workspace. */
  get absent(): Things {
    const digest = `sha256:${"0".repeat(64)}`;
    return {
      workspace: "gamma",
      secret: "secret-of-gamma",
      imageId: `img-${"0".repeat(24)}`,
      reference: `${this.registry.host}/of-gamma/app:1`,
      pinned: `${this.registry.host}/of-gamma/app@${digest}`,
      ended: `c-${"0".repeat(16)}`,
      running: `c-${"1".repeat(16)}`,
      token: "00000000-0000-4000-8000-000000000000",
      webhook: "00000000-0000-4000-8000-000000000001",
      spareWebhooks: [],
      key: "1".repeat(16),
      worker: "no-such-worker-either",
      volume: "data-of-gamma",
      endpoint: "endpoint-of-gamma",
    };
  }

  async stop(): Promise<void> {
    try {
      await this.node.stop();
    } finally {
      await this.registry.stop();
      await this.#receiver.stop(true);
      await rm(this.#dir, { recursive: true, force: true });
    }
  }
}

/** What is deployed as an endpoint that never answers, and takes its time to fail. */
export function silentEndpoint(image: string): object {
  return { image, command: ["sh", "-c", waits], startupTimeoutMs: 3_600_000 };
}

export function tokenOf(role: TenantRole, workspace: string): string[] {
  return ["token", "create", "--role", role, "--workspace", workspace];
}
