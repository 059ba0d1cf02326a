import { BlockList, isIP } from "node:net";
import { Redacted } from "../std/redacted.ts";

/** A proxy's URL; a user name and a password may be in it. */
export type ProxyUrl = Redacted<URL>;

/** Which proxy stands before which hosts. */
export interface Proxies {
  readonly https: ProxyUrl | undefined;
  readonly http: ProxyUrl | undefined;
  /** Hosts that are asked without it, as NO_PROXY lists them. */
  readonly except: readonly string[];
}

export const noProxies: Proxies = { https: undefined, http: undefined, except: [] };

const variables = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"];

/** Of an environment what {@link proxiesFromEnvironment} reads, for a process that is given nothing else of it. */
export function proxyVariables(env: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const names = variables.flatMap((name) => [name.toLowerCase(), name]);
  return Object.fromEntries(names.flatMap((name) => (env[name] === undefined ? [] : [[name, env[name]]])));
}

const loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

/** One proxy for everything. */
export function proxyForAll(url: URL): Proxies {
  const proxy = new Redacted(url);
  return { https: proxy, http: proxy, except: [] };
}

/**
 * What HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say; the lower-case name goes before the other, as curl and Go have
 * it. The scheme of a proxy may be left out.
 *
 * @throws RangeError with the variable's name (and not its value, which may hold a password) when it is no http(s) URL
 */
export function proxiesFromEnvironment(env: Readonly<Record<string, string | undefined>>): Proxies {
  const named = (name: string) => env[name.toLowerCase()] || env[name];
  const urlOf = (name: string): URL | undefined => {
    const text = named(name);
    if (!text) return undefined;
    const url = URL.parse(/^[a-z0-9]+:\/\//i.test(text) ? text : `http://${text}`);
    if (url !== null && /^https?:$/.test(url.protocol)) return url;
    // Other programs' proxies may be of other kinds; that is no reason for this one not to start.
    if (name === "ALL_PROXY") return undefined;
    throw new RangeError(name);
  };
  const all = urlOf("ALL_PROXY");
  const [https, http] = [urlOf("HTTPS_PROXY") ?? all, urlOf("HTTP_PROXY") ?? all];
  return {
    https: https && new Redacted(https),
    http: http && new Redacted(http),
    except: (named("NO_PROXY") ?? "").split(/[\s,]+/).filter((entry) => entry !== ""),
  };
}

/** The proxy before a host, if there is one. This machine itself is never asked through a proxy: it would mean its own. */
export function proxyBefore(proxies: Proxies, url: URL): ProxyUrl | undefined {
  const proxy = url.protocol === "https:" ? proxies.https : proxies.http;
  if (proxy === undefined || isLoopbackName(url) || proxies.except.some((entry) => matches(entry, url)))
    return undefined;
  return proxy;
}

function isLoopbackName({ hostname }: URL): boolean {
  const host = bare(hostname);
  const family = isIP(host);
  if (family !== 0) return loopback.check(host, family === 4 ? "ipv4" : "ipv6");
  return /(^|\.)localhost\.?$/.test(host);
}

/**
 * `*`, an address, a range (`10.0.0.0/8`), `example.com` (and all below it), `.example.com` or `*.example.com` (only what
 * is below it); each of the names and addresses with a port or without (Go's golang.org/x/net/http/httpproxy).
 */
function matches(entry: string, url: URL): boolean {
  if (entry === "*") return true;
  const host = bare(url.hostname).replace(/\.$/, "");
  const range = /^\[?([0-9a-f:.]+)\]?\/(\d{1,3})$/i.exec(entry);
  if (range !== null) return isIP(host) !== 0 && inRange(range[1] ?? "", Number(range[2]), host);
  const withPort = /^(\[[^\]]+\]|[^:]+):(\d+)$/.exec(entry);
  const port = withPort?.[2];
  if (port !== undefined && port !== (url.port || (url.protocol === "https:" ? "443" : "80"))) return false;
  const name = bare(withPort?.[1] ?? entry).toLowerCase();
  if (isIP(name) !== 0) return isIP(host) !== 0 && inRange(name, isIP(name) === 4 ? 32 : 128, host);
  const suffix = name.replace(/^\*?\./, "");
  return host.endsWith(`.${suffix}`) || (host === suffix && suffix === name);
}

function inRange(network: string, bits: number, host: string): boolean {
  const [family, width] = isIP(network) === 4 ? (["ipv4", 32] as const) : (["ipv6", 128] as const);
  if (isIP(network) === 0 || isIP(host) !== isIP(network) || bits > width) return false;
  const range = new BlockList();
  range.addSubnet(network, bits, family);
  return range.check(host, family);
}

function bare(hostname: string): string {
  return hostname.replace(/^\[|\]$/g, "");
}
