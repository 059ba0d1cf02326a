import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { busyboxImage } from "./busybox-image.ts";
import { TestNode } from "./node.ts";
import { push } from "./push.ts";
import { TestRegistry } from "./registry.ts";
import { TokenExchange } from "./token-exchange.ts";
import { TokenVerifier } from "./token-verifier.ts";

export const issuer = "https://id.example.test/node";
export const pool = "projects/123/locations/global/workloadIdentityPools/oci-node/providers/oci-node";
/** Where the private registry of this world stands, too. */
export const google = "europe-docker.pkg.dev";
export const account = { username: "oauth2accesstoken", password: "ya29.an-access-token-of-the-tests" };

/** What the operator allows the default workspace, as in the configuration. */
export interface Allowed {
  readonly identities: readonly string[];
  readonly default_identity?: string;
}

/**
 * A node whose operator has two identities, `prod` and `dev`, that a plugin gives, and an issuer; a private registry with
 * `acme/images/app:1` for both and for Google; an open one with `public/app:1`, and `broken/app:1`, at which the plugin
 * fails.
 */
export class IdentityWorld {
  node!: TestNode;
  readonly registry: TestRegistry;
  readonly open: TestRegistry;
  readonly exchange: TokenExchange;
  readonly #folder: string;

  private constructor(folder: string, registry: TestRegistry, open: TestRegistry) {
    this.#folder = folder;
    this.registry = registry;
    this.open = open;
    const verifier = new TokenVerifier({ issuer, subject: "workspace:default" });
    this.exchange = new TokenExchange(verifier, `https://iam.googleapis.com/${pool}`, account.password);
  }

  static async start(allowed: Allowed): Promise<IdentityWorld> {
    const folder = await mkdtemp(join(tmpdir(), "oci-node-identity-"));
    await chmod(folder, 0o755);
    const registry = await TestRegistry.start({ auth: "htpasswd", accounts: [account] });
    const open = await TestRegistry.start({ auth: "none" });
    const world = new IdentityWorld(folder, registry, open);
    try {
      const image = await busyboxImage();
      await push(image, registry, "acme/images/app:1");
      await push(image, open, "public/app:1");
      await push(image, open, "broken/app:1");
      await writeFile(world.#plugin, world.#script());
      await chmod(world.#plugin, 0o755);
      await world.#startNode(allowed);
      return world;
    } catch (error) {
      await world.#end();
      throw error;
    }
  }

  /** Starts the node again, with other rights of its workspace. */
  async restart(allowed: Allowed): Promise<void> {
    await this.node.stop();
    await this.#startNode(allowed);
  }

  /** The requests that the plugin got so far. */
  async pluginRuns(): Promise<string[]> {
    const text = await readFile(join(this.#folder, "runs"), "utf8").catch(() => "");
    return text.split("\n").filter((line) => line !== "");
  }

  /** Ends everything; the node must leave nothing behind. */
  async stop(): Promise<void> {
    try {
      await this.node.stop();
    } finally {
      await this.#end();
    }
  }

  async #end(): Promise<void> {
    await this.exchange.stop();
    await this.registry.stop();
    await this.open.stop();
    await rm(this.#folder, { recursive: true, force: true });
  }

  async #startNode(allowed: Allowed): Promise<void> {
    const path = join(this.#folder, "config.toml");
    await writeFile(path, this.#configuration(allowed), { mode: 0o600 });
    this.node = await TestNode.start({
      dataDir: join(this.#folder, "data"),
      insecureRegistries: [this.registry.host, this.open.host],
      args: ["--config", path],
    });
    this.exchange.verifier.issuerOrigin = this.node.url;
  }

  get #plugin(): string {
    return join(this.#folder, "plugin");
  }

  /** A credential provider plugin that gives the registry's account, and fails for some images. */
  #script(): string {
    const answer = {
      apiVersion: "credentialprovider.kubelet.k8s.io/v1",
      kind: "CredentialProviderResponse",
      cacheKeyType: "Registry",
      cacheDuration: "1h",
      auth: { [this.registry.host]: account },
    };
    return [
      "#!/bin/sh",
      "request=$(cat)",
      `echo "$request" >> ${join(this.#folder, "runs")}`,
      'case "$request" in */broken/*) exit 1;; esac',
      `cat <<'END'\n${JSON.stringify(answer)}\nEND\n`,
    ].join("\n");
  }

  #configuration(allowed: Allowed): string {
    const patterns = JSON.stringify([this.registry.host, `${this.open.host}/broken`]);
    const identity = `type = "plugin"\ncommand = ["${this.#plugin}"]\nmatch_images = ${patterns}`;
    return `
[registry.hosts."${google}"]
connect = "http://${this.registry.host}"
[registry.hosts."sts.googleapis.com"]
connect = "${this.exchange.origin}"
[identity]
issuer = "${issuer}"
[identities.prod]
${identity}
[identities.dev]
${identity}
[workspaces.elsewhere]
identities = ["dev"]
[workspaces.default]
identities = ${JSON.stringify(allowed.identities)}
${allowed.default_identity === undefined ? "" : `default_identity = "${allowed.default_identity}"`}
`;
  }
}
