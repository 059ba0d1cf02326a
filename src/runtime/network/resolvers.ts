import { readFile } from "node:fs/promises";
import { isIPv4 } from "node:net";

/** What containers are told of name resolution (resolv.conf(5)). */
export interface Resolvers {
  /** IPv4 addresses; none: names are not resolved. */
  readonly servers: readonly string[];
  /** `search` and `options` lines of the host. */
  readonly lines: readonly string[];
}

const hostFiles = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/**
 * The name servers of the worker's configuration, or the host's. A server on the host's loopback (systemd-resolved's stub,
 * a local dnsmasq) is none for a container: then those that systemd-resolved itself asks are taken. Containers have no
 * IPv6, so its servers are left out.
 */
export async function resolvers(
  configured: readonly string[] | undefined,
  files: readonly string[] = hostFiles,
): Promise<Resolvers> {
  const texts = await Promise.all(files.map((file) => readFile(file, "utf8").catch(() => "")));
  const found = texts.map(parse);
  const lines = found[0]?.lines ?? [];
  if (configured !== undefined) return { servers: configured, lines };
  return { servers: found.find(({ servers }) => servers.length > 0)?.servers ?? [], lines };
}

/** A container's /etc/resolv.conf. */
export function resolvConf({ servers, lines }: Resolvers): string {
  return [...lines, ...servers.map((server) => `nameserver ${server}`), ""].join("\n");
}

function parse(text: string): Resolvers {
  const servers: string[] = [];
  const lines: string[] = [];
  for (const line of text.split("\n")) {
    const [keyword = "", ...values] = line.trim().split(/\s+/);
    const [server = ""] = values;
    if (keyword === "nameserver" && isIPv4(server) && !server.startsWith("127.") && server !== "0.0.0.0")
      servers.push(server);
    // Options of the stub alone (`edns0 trust-ad`) do no harm at the servers behind it.
    if (["search", "domain", "options"].includes(keyword) && values.length > 0)
      lines.push([keyword, ...values].join(" "));
  }
  return { servers, lines };
}
