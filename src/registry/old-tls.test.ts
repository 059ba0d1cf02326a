import { expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@connectrpc/connect";
import { SecretService } from "../gen/oci_node/v1/secret_service_pb.ts";
import { serve } from "../rpc/server.ts";
import { transportTo } from "../rpc/transport.ts";
import { tryRun } from "../std/spawn.ts";
import { makeCertificate } from "./certificate.test-kit.ts";
import { RegistryClient } from "./client.ts";
import { startTlsServerOf } from "./old-tls.test-kit.ts";
import { basicProvider } from "./quirks.test-kit.ts";

const versions = ["tls1", "tls1_1", "tls1_2"] as const;
const signal = new AbortController().signal;
const outcome = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "answered",
    (error: { code?: unknown; message: string }) => `${error.code}: ${error.message}`,
  );

test.each(versions)(
  "a registry, and a gateway, that speak %s are spoken to from TLS 1.2 on",
  async (version) => {
    const server = await startTlsServerOf(version);
    try {
      const host = `127.0.0.1:${server.port}`;
      const client = new RegistryClient({
        policy: {
          insecureHosts: new Set(),
          privateHosts: new Set([host]),
          ca: server.certificate.certificate,
          attemptsMax: 1,
        },
      });
      const asked = await outcome(
        client
          .repository({ registry: host, repository: "a/b" }, basicProvider(host, "a password"))
          .headManifest("1", signal),
      );
      const transport = transportTo({
        url: `https://${host}`,
        token: "ocn_x",
        ca: [server.certificate.certificate],
      });
      if (version === "tls1_2") {
        // It is no registry, but it was heard.
        expect(asked).not.toContain("tls: ");
      } else {
        expect(asked).toContain(`tls: ${host} does not answer with TLS 1.2 or later`);
        const called = await outcome(createClient(SecretService, transport).listSecrets({}));
        expect(called).not.toBe("answered");
      }
    } finally {
      await server.stop();
    }
  },
);

test("a gateway speaks TLS 1.2 and later, and nothing before", async () => {
  const dir = await mkdtemp(join(tmpdir(), "oci-node-new-tls-"));
  const { key, certificate } = await makeCertificate("127.0.0.1");
  const [certFile, keyFile] = [join(dir, "crt"), join(dir, "key")];
  await writeFile(certFile, certificate);
  await writeFile(keyFile, key, { mode: 0o600 });
  const tls = { certFile, keyFile };
  const server = await serve({ host: "127.0.0.1", port: 0, tls, interceptors: [], routes: () => undefined });
  try {
    for (const version of [...versions, "tls1_3"]) {
      const old = version.length === 4 || version === "tls1_1";
      const argv = ["openssl", "s_client", "-connect", `127.0.0.1:${server.port}`, `-${version}`];
      const { exitCode } = await tryRun([...argv, "-cipher", "ALL:@SECLEVEL=0"], {
        stdin: "",
        timeoutMs: 20_000,
      });
      expect([version, exitCode === 0]).toEqual([version, !old]);
    }
  } finally {
    await server.close();
    await rm(dir, { recursive: true });
  }
});
