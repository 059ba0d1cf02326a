import { readFileSync } from "node:fs";
import { makeCertificate } from "./certificate.test-kit.ts";
import { HostileInternet } from "./hostile-internet.test-kit.ts";
import { type HostileRow, type RowResult, runRow } from "./hostile-row.test-kit.ts";
import { hostileRows, twinOf } from "./hostile-rows.test-kit.ts";
import { type Proxies, proxyForAll } from "./proxy.ts";

/** What a run of the corpus saw. */
export interface HostileRun {
  readonly rows: readonly RowResult[];
  readonly twins: readonly RowResult[];
  /** The rows once more, through a proxy. */
  readonly proxied: readonly RowResult[];
  /** Connections that the kernel was asked for, over the rows: also those that nobody took. */
  readonly opens: number;
  readonly taken: number;
}

/** Names and addresses that the world has a certificate for: all that it is asked under, as every attacker has his own. */
function names(rows: readonly HostileRow[]): string[] {
  const fixed = [
    "registry.example",
    "one.example",
    "two.example",
    "sts.inside.example",
    "moving.example",
    "mirror.example",
    "hooks.example",
    "*.example",
    "*.evil.example",
    "*.docker.io",
    "*.amazonaws.com",
    "*.dkr.ecr.us-east-1.amazonaws.com",
  ];
  const more = [
    "*.ecr.us-east-1.amazonaws.com",
    "*.azurecr.io",
    "*.pkg.dev",
    "*.registry.example",
    "localhost",
    "example",
    "registry-example",
  ];
  const urls = rows.flatMap((row) => [row.location, /realm="([^"]*)"/.exec(row.challenge ?? "")?.[1]]);
  const hosts = urls.flatMap((text) => {
    const host = URL.parse((text ?? "").replaceAll("\\\\", "\\"), "https://registry.example/")?.hostname;
    return host ? [host.replace(/^\[|\]$/g, "")] : [];
  });
  const known = [
    "ghcr.io",
    "nvcr.io",
    "authn.nvidia.com",
    "gitlab.com",
    "registry.gitlab.com",
    "auth.docker.io",
  ];
  return [...new Set([...fixed, ...more, ...known, ...hosts.filter((host) => !/[%~]/.test(host))])];
}

const activeOpens = (): number => {
  const [head = "", values = ""] = readFileSync("/proc/self/net/snmp", "utf8")
    .split("\n")
    .filter((line) => line.startsWith("Tcp:"));
  return Number(values.split(" ")[head.split(" ").indexOf("ActiveOpens")]);
};

const certificate = await makeCertificate(...names([...hostileRows, ...hostileRows.flatMap(twinOf)]));
const internet = new HostileInternet(certificate);
const run = async (rows: readonly HostileRow[], through?: Proxies): Promise<RowResult[]> => {
  const results: RowResult[] = [];
  for (const row of rows) results.push(await runRow(row, internet, certificate.certificate, through));
  return results;
};

const before = activeOpens();
const rows = await run(hostileRows);
// Who is asked for a connection last may hear of it a little later.
for (const untilMs = Date.now() + 5_000; internet.taken < activeOpens() - before && Date.now() < untilMs; )
  await new Promise((resolve) => setImmediate(resolve));
const [opens, taken] = [activeOpens() - before, internet.taken];
const twins = await run(hostileRows.flatMap(twinOf));
const proxied = await run(hostileRows, proxyForAll(internet.proxy));
const result: HostileRun = { rows, twins, proxied, opens, taken };
await Bun.write(Bun.stdout, JSON.stringify(result));
process.exit(0);
