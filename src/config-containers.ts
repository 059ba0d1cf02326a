import { isIP } from "node:net";
import { z } from "zod";
import { size } from "./config-fields.ts";
import { metadataRanges } from "./runtime/network/settings.ts";

const ipv4Range = z.string().refine((text) => isRange(text), "must be an IPv4 range such as 10.210.0.0/16");

function isRange(text: string): boolean {
  const [address = "", bits = ""] = text.split("/");
  return isIP(address) === 4 && /^\d{1,2}$/.test(bits) && Number(bits) <= 32;
}

/** How the private networks of a worker's containers are made. */
export const containerNetwork = z.strictObject({
  /** From which each container gets an address. */
  subnet: ipv4Range
    .refine((text) => /\/([89]|1\d|2[0-8])$/.test(text), "must be between a /8 and a /28")
    .default("10.210.0.0/16"),
  /** Folders with CNI plugins: ptp, host-local, portmap. */
  cni_path: z.array(z.string()).nonempty().default(["/opt/cni/bin", "/usr/lib/cni"]),
  /** Name servers of the containers; absent: the host's, where they are not on its loopback. */
  dns: z.array(z.ipv4()).optional(),
  /** What containers may not reach: by default where clouds keep what is for their hosts alone. */
  deny: z.array(ipv4Range).default([...metadataRanges]),
  /** Whether containers reach the worker's host itself, by whatever address of it. */
  allow_host: z.boolean().default(false),
  /** What a container may have open to the world at once; absent: a quarter of what the host can keep track of. */
  connections_max: z.number().int().min(16).optional(),
  mtu: z.number().int().min(576).max(65535).optional(),
});

/** What holds for HTTP endpoints at this gateway. */
export const endpointSettings = z.strictObject({
  /** Of a request's body. */
  body_max: size.default(100 * 1024 ** 2),
  /** Of an archive of uploaded code, compressed and unpacked. */
  code_max: size.default(64 * 1024 ** 2),
  code_unpacked_max: size.default(512 * 1024 ** 2),
  /** Containers that one endpoint may have. */
  containers_max: z.number().int().positive().default(100),
  /** Requests that one endpoint may have waiting. */
  queue_max: z.number().int().positive().default(10_000),
});
