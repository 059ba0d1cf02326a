import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { type Resolvers, resolvConf } from "../network/resolvers.ts";
import type { ContainerSpec } from "../spec.ts";

const loopbackHosts = `127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
`;

/** The container's name for itself: the host's where it shares the host's network, else the start of its id. */
export function containerHostname(spec: Pick<ContainerSpec, "id" | "network">): string {
  if (spec.network === "host") return hostname();
  return spec.id.slice(0, 12).replace(/[^A-Za-z0-9-]/g, "-");
}

/** Writes the container's own /etc/hosts, /etc/hostname and /etc/resolv.conf into `directory`. */
export async function writeEtcFiles(directory: string, spec: ContainerSpec): Promise<void> {
  await mkdir(directory, { recursive: true });
  const name = containerHostname(spec);
  const host = spec.network === "host";
  await writePublic(join(directory, "hostname"), `${name}\n`);
  await writePublic(
    join(directory, "hosts"),
    host ? await hostFile("/etc/hosts") : `${loopbackHosts}127.0.0.1\t${name}\n`,
  );
  await writePublic(join(directory, "resolv.conf"), host ? await hostFile("/etc/resolv.conf") : "");
}

/**
 * Completes the files of a container that got an address after they were shown in it: they are written in place, because what
 * is shown is the file and not its name. Nothing of the container runs yet.
 */
export async function writeAttachedEtcFiles(
  directory: string,
  spec: Pick<ContainerSpec, "id" | "network">,
  address: string,
  resolvers: Resolvers,
): Promise<void> {
  await writeFile(join(directory, "hosts"), `${loopbackHosts}${address}\t${containerHostname(spec)}\n`);
  await writeFile(join(directory, "resolv.conf"), resolvConf(resolvers));
}

/** Whatever our umask: every user of the container reads them. */
async function writePublic(path: string, text: string): Promise<void> {
  await writeFile(path, text);
  await chmod(path, 0o644);
}

async function hostFile(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch {
    return "";
  }
}
