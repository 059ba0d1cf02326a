import { access, constants } from "node:fs/promises";
import { connect } from "node:net";
import { type Config, ConfigError, type IdentitySettings, readConfig } from "../config.ts";
import { inFile } from "../config-problem.ts";
import type { Identity, IssuerFetch } from "../credential/issuer.ts";
import type { RegistryClient } from "../registry/client.ts";
import { proxyVariables } from "../registry/proxy.ts";
import { assertSafeDatabase } from "../role/database-url.ts";
import { createIdentities } from "../role/identities.ts";
import { listenSettings } from "../role/listening.ts";
import { createRegistryClient } from "../role/registry-client.ts";
import { CodedError } from "../std/error.ts";
import type { Finding } from "./finding.ts";

type Environment = Readonly<Record<string, string | undefined>>;

const patienceMs = 5_000;

/**
 * What a configuration says and whether it holds on this host: the file itself, the proxies, each identity, the issuer.
 * Identities are asked for what they would be asked for at a build; what comes of it is thrown away.
 */
export async function checkConfig(path: string, env: Environment = process.env): Promise<Finding[]> {
  try {
    const config = readConfig(path);
    if (config.database.url !== undefined) assertSafeDatabase(config.database.url);
    listenSettings("gateway", config.gateway, 0);
    const client = createRegistryClient(config, env);
    const dependencies = { fetch: client.issuerFetch, metadataFetch: client.metadataFetch };
    const identities = createIdentities(config.identities, dependencies);
    const checks = [
      ...proxiesOf(config, env).map(checkProxy),
      ...[...identities].map(([name, identity]) => checkIdentity(name, identity, config)),
      ...checkIssuer(config.identity.issuer, client),
    ];
    return [{ check: "config", state: "ok", found: path }, ...(await Promise.all(checks))];
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const problem = told(error);
    const found = problem.found.startsWith(path) ? problem.found : inFile(problem.found, path);
    return [{ check: "config", state: "bad", ...problem, found }];
  }
}

/** `http://proxy.lan:3128`, without the user and the password that may be in it. */
function proxiesOf({ registry }: Config, env: Environment): readonly URL[] {
  const variables = Object.entries(proxyVariables(env)).filter(([name]) => !/^no_proxy$/i.test(name));
  const general = registry.proxy === undefined ? variables.map(([, value]) => value) : [registry.proxy];
  const written = [...general, ...Object.values(registry.hosts).map(({ proxy }) => proxy)];
  const urls = written.flatMap((text) => {
    if (!text || text === "none") return [];
    const url = URL.parse(/^[a-z0-9]+:\/\//i.test(text) ? text : `http://${text}`);
    return url === null || !/^https?:$/.test(url.protocol) ? [] : [url];
  });
  return [...new Map(urls.map((url) => [url.origin, url])).values()];
}

async function checkProxy({ origin, hostname, port, protocol }: URL): Promise<Finding> {
  const check = "proxy";
  const number = Number(port || (protocol === "https:" ? 443 : 80));
  if (await accepts(hostname.replace(/^\[|\]$/g, ""), number))
    return { check, state: "ok", found: `${origin} takes connections` };
  return {
    check,
    state: "bad",
    found: `${origin} takes no connection`,
    next: 'Check the proxy, or set proxy = "none" in [registry] or for one host.',
  };
}

function accepts(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: patienceMs });
    const end = (whether: boolean) => {
      socket.destroy();
      resolve(whether);
    };
    socket.once("connect", () => end(true));
    socket.once("timeout", () => end(false));
    socket.once("error", () => end(false));
  });
}

async function checkIdentity(name: string, identity: Identity, config: Config): Promise<Finding> {
  const check = `identity ${name}`;
  const settings = config.identities[name] as IdentitySettings;
  const usable =
    Object.values(config.workspaces).some(({ identities }) => identities.includes(name)) ||
    Object.values(config.keys).some((key) => "identity" in key && key.identity === name);
  try {
    const found = await tryIdentity(identity, settings);
    if (usable) return { check, state: "ok", found };
    const next = `List it: [workspaces.default] identities = ["${name}"].`;
    return { check, state: "limited", found: `${found}; no workspace may use it`, next };
  } catch (error) {
    if (error instanceof CodedError) return { check, state: "limited", ...told(error) };
    throw error;
  }
}

/** What it gives, in words. @throws CredentialError, RegistryError */
async function tryIdentity(identity: Identity, settings: IdentitySettings): Promise<string> {
  const signal = AbortSignal.timeout(4 * patienceMs);
  switch (settings.type) {
    case "aws":
      await identity.awsKeys?.(signal);
      return `AWS gives it keys (${settings.source})`;
    case "gcp":
      await identity.provider("gcr.io").authorization(signal);
      return `Google gives it tokens (${settings.source})`;
    case "azure":
      return `Azure (${settings.source}); asked at the first build from one of its registries`;
    case "plugin":
      return await executable(settings.command[0]);
  }
}

async function executable(path = ""): Promise<string> {
  try {
    await access(path, constants.X_OK);
    return `the plugin ${path} can be run`;
  } catch {
    throw new ConfigError("invalid", `the plugin ${path} cannot be run`, {
      next: "Install it there, with the right to execute it, or correct command.",
    });
  }
}

/** Whether clouds, which ask from outside, find what the gateway publishes. */
function checkIssuer(issuer: string | undefined, { issuerFetch }: RegistryClient): Promise<Finding>[] {
  return issuer === undefined ? [] : [findIssuer(issuer, issuerFetch)];
}

async function findIssuer(issuer: string, ask: IssuerFetch): Promise<Finding> {
  const check = "issuer";
  const url = `${issuer}/.well-known/openid-configuration`;
  const next = `Have ${url} and ${issuer}/.well-known/jwks.json lead to the gateway, from the Internet.`;
  try {
    const response = await ask(url, { signal: AbortSignal.timeout(4 * patienceMs) });
    const named = response.ok ? issuerIn(await response.text()) : undefined;
    if (named === issuer) return { check, state: "ok", found: `${issuer} is found` };
    const what = response.ok ? "is not what the gateway publishes" : `is answered with ${response.status}`;
    return { check, state: "limited", found: `${url} ${what}`, next };
  } catch (error) {
    if (error instanceof CodedError) return { check, state: "limited", found: error.message, next };
    throw error;
  }
}

function issuerIn(text: string): unknown {
  try {
    return (JSON.parse(text) as { issuer?: unknown } | null)?.issuer;
  } catch {
    return undefined;
  }
}

function told({ message, next }: CodedError): Pick<Finding, "found" | "next"> {
  return { found: message, ...(next === undefined ? {} : { next }) };
}
