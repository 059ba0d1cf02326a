import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cleanEnvironment } from "../std/spawn.ts";

/** Debian's docker-registry (distribution 2.8), on a port of its own, with its store in a temporary folder. */
export interface DockerRegistry {
  /** `127.0.0.1:PORT` */
  readonly host: string;
  readonly root: string;
  stop(): Promise<void>;
}

export type RegistryAuth =
  | { readonly kind: "none" }
  | { readonly kind: "htpasswd"; readonly username: string; readonly password: string }
  | {
      readonly kind: "token";
      readonly realm: string;
      readonly service: string;
      readonly issuer: string;
      readonly certificate: string;
    };

/** Starts a registry and returns when it listens. */
export async function startDockerRegistry(auth: RegistryAuth = { kind: "none" }): Promise<DockerRegistry> {
  const root = await mkdtemp(join(tmpdir(), "oci-node-registry-"));
  await writeFile(join(root, "config.yml"), await configOf(auth, root));
  const child = Bun.spawn(["/usr/bin/docker-registry", "serve", join(root, "config.yml")], {
    env: cleanEnvironment,
    stdout: "ignore",
    stderr: "pipe",
  });
  const stop = async (): Promise<void> => {
    child.kill("SIGKILL");
    await child.exited;
    await rm(root, { recursive: true, force: true });
  };
  try {
    return { host: await listeningHost(child.stderr), root, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function configOf(auth: RegistryAuth, root: string): Promise<string> {
  const base = {
    version: 0.1,
    log: { level: "info", accesslog: { disabled: true } },
    storage: { filesystem: { rootdirectory: join(root, "store") }, delete: { enabled: true } },
    http: { addr: "127.0.0.1:0", secret: "for-tests" },
  };
  if (auth.kind === "none") return JSON.stringify(base);
  if (auth.kind === "htpasswd") {
    const path = join(root, "htpasswd");
    const hash = await Bun.password.hash(auth.password, { algorithm: "bcrypt", cost: 4 });
    await writeFile(path, `${auth.username}:${hash}\n`);
    return JSON.stringify({ ...base, auth: { htpasswd: { realm: "tests", path } } });
  }
  const rootcertbundle = join(root, "token.crt");
  await writeFile(rootcertbundle, auth.certificate);
  const { realm, service, issuer } = auth;
  return JSON.stringify({ ...base, auth: { token: { realm, service, issuer, rootcertbundle } } });
}

/** The registry logs `listening on 127.0.0.1:PORT`; whatever it logs afterwards is read away. */
async function listeningHost(log: ReadableStream<Uint8Array>): Promise<string> {
  const reader = log.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error(`docker-registry did not start: ${text.slice(-2000)}`);
    text += decoder.decode(value, { stream: true });
    const host = /listening on (127\.0\.0\.1:\d+)/.exec(text)?.[1];
    if (host === undefined) continue;
    void drain(reader);
    return host;
  }
}

async function drain(reader: { read(): Promise<{ readonly done: boolean }> }): Promise<void> {
  while (!(await reader.read()).done);
}
